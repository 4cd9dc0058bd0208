package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// People read of the same tests and reasons, and of no others.
func TestDocumentationTellsTheScope(t *testing.T) {
	b, err := os.ReadFile("../../docs/conformance.md")
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for _, e := range outOfScope {
		fmt.Fprintf(&want, "| %s | %s |\n", e.Test, e.Why)
	}
	_, table, found := strings.Cut(string(b), "| test of critest | why it is out of scope |\n|---|---|\n")
	table, _, _ = strings.Cut(table, "\n\n")
	if !found || strings.TrimSpace(table) != strings.TrimSpace(want.String()) {
		t.Errorf("docs/conformance.md has another table of critest's tests out of scope than scope.go; it should be:\n%s", want.String())
	}
}
