package main

import "errand.dev/errand/test/ginkgoreport"

// defaultFocus are the groups of tests that errand promises to pass: what SCOPE.md has in.
const defaultFocus = `\[sig-apps\] (Job|CronJob|TTLAfterFinished) `

// outOfScope are the tests within the focus that errand doesn't mean to pass, or not yet. docs/conformance.md tells the same to
// people, and a test sees to it.
var outOfScope = []ginkgoreport.Exclusion{
	{
		Test: "[sig-apps] Job should compile a Workload and PodGroup for a gang-scheduled Job and wire its pods to the PodGroup",
		Why:  gang,
	},
	{
		Test: "[sig-apps] Job should create Workload and PodGroup for gang-eligible Job",
		Why:  gang,
	},
	{
		Test: "[sig-apps] Job should propagate an elastic gang minCount change to the Workload and PodGroup",
		Why:  gang,
	},
}

const gang = "an alpha feature, off by default in Kubernetes: gang scheduling by a Workload and its PodGroup"
