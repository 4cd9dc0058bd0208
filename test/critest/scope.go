package main

import "errand.dev/errand/test/ginkgoreport"

// outOfScope are the tests that errand doesn't mean to pass, or that can't pass here. docs/conformance.md tells the same to people, and
// a test sees to it.
var outOfScope = []ginkgoreport.Exclusion{}
