//go:build e2e

package e2e

import (
	"regexp"
	"strings"
	"testing"
)

// wantLines compares an output with a pattern, line by line. Runs of blanks
// count as one. In the pattern, what stands in angle brackets
// (placeholders) is what differs from run to run.
func wantLines(t *testing.T, got, pattern string) {
	t.Helper()
	gotLines := lines(got)
	wantLines := lines(pattern)
	for i, want := range wantLines {
		if i >= len(gotLines) {
			t.Errorf("line %d is missing: %q\nin:\n%s", i+1, want, got)
			return
		}
		if !lineRegexp(want).MatchString(gotLines[i]) {
			t.Errorf("line %d is %q, want %q\nin:\n%s", i+1, gotLines[i], want, got)
			return
		}
	}
	if len(gotLines) > len(wantLines) {
		t.Errorf("line %d is one too many: %q\nin:\n%s", len(wantLines)+1, gotLines[len(wantLines)], got)
	}
}

func lines(s string) []string {
	var out []string
	for line := range strings.Lines(s) {
		if line = strings.Join(strings.Fields(line), " "); line != "" {
			out = append(out, line)
		}
	}
	return out
}

var placeholders = map[string]string{
	"<age>":  `\d+[smhd](\d+[smh])?`,
	"<name>": `[a-z0-9.-]+`,
	"<uid>":  `[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`,
	"<time>": `[A-Z][a-z]{2}, \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} [+-]\d{4}`,
	"<any>":  `.+`,

	"<duration>": `(\d+m)?\d+(\.\d+)?(µs|ms|s)`,
	"<number>":   `\d+`,
}

func lineRegexp(pattern string) *regexp.Regexp {
	re := regexp.QuoteMeta(pattern)
	for name, means := range placeholders {
		re = strings.ReplaceAll(re, regexp.QuoteMeta(name), means)
	}
	return regexp.MustCompile("^" + re + "$")
}
