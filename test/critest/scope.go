package main

import "errand.dev/errand/test/ginkgoreport"

// outOfScope are the tests that can't pass here, whatever the runtime does. docs/conformance.md tells the same to people, and a test
// sees to it.
var outOfScope = ginkgoreport.Exclusions{
	{
		Begins: "[k8s.io] Image Manager public image with digest should be pulled and removed",
		Why:    "it names an image by its digest, which no stand-in has",
	},
	{
		Begins: "[k8s.io] Security Context bucket runtime should support MaskedPaths",
		Why:    "it masks `/bin/ls`, and the stand-in's shell has an ls of its own; errand's contract suite masks a file that is read",
	},
}
