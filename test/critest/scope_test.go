package main

import "testing"

// People read of the same tests and reasons, and of no others.
func TestDocumentationTellsTheScope(t *testing.T) {
	if err := outOfScope.CheckTable("../../docs/conformance.md", "| tests of critest | why they are out of scope |"); err != nil {
		t.Error(err)
	}
}
