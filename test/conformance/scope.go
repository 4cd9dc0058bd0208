package main

import (
	"regexp"
	"slices"
	"strings"
)

// defaultFocus are the groups of tests that errand promises to pass: what SCOPE.md has in.
const defaultFocus = `\[sig-apps\] (Job|CronJob|TTLAfterFinished) `

// exclusion takes a test out of scope. docs/conformance.md tells the same to people, and a test sees to it.
type exclusion struct {
	// test is how the test's full name begins.
	test string
	why  string
}

// outOfScope are the tests within the focus that errand doesn't mean to pass, or not yet.
var outOfScope = []exclusion{
	{
		"[sig-apps] Job should compile a Workload and PodGroup for a gang-scheduled Job and wire its pods to the PodGroup",
		gang,
	},
	{
		"[sig-apps] Job should create Workload and PodGroup for gang-eligible Job",
		gang,
	},
	{
		"[sig-apps] Job should propagate an elastic gang minCount change to the Workload and PodGroup",
		gang,
	},
}

const gang = "an alpha feature, off by default in Kubernetes: gang scheduling by a Workload and its PodGroup"

// pattern fits the test, as a regular expression for ginkgo, which matches it against the suite's name and the test's.
func (e exclusion) pattern() string { return " " + regexp.QuoteMeta(e.test) }

func (e exclusion) fits(name string) bool { return strings.HasPrefix(name, e.test) }

func isOutOfScope(name string) bool {
	return slices.ContainsFunc(outOfScope, func(e exclusion) bool { return e.fits(name) })
}
