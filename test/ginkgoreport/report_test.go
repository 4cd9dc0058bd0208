package ginkgoreport

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A report as ginkgo writes it, with one test of each kind.
const reportJSON = `[{"SuiteSucceeded": false, "SpecReports": [
	{"LeafNodeType": "SynchronizedBeforeSuite", "State": "passed"},
	{"ContainerHierarchyTexts": ["[sig-apps] Job"], "LeafNodeType": "It", "LeafNodeText": "passes", "State": "passed", "RunTime": 1},
	{"ContainerHierarchyTexts": ["[sig-apps] Job", "within"], "LeafNodeType": "It", "LeafNodeText": "fails", "State": "failed",
	 "Failure": {"Message": "timed out\nand more", "Location": {"FileName": "k8s.io/kubernetes/test/e2e/apps/job.go", "LineNumber": 7}}},
	{"ContainerHierarchyTexts": ["[sig-apps] Job"], "LeafNodeType": "It", "LeafNodeText": "skips itself", "State": "skipped", "Failure": {"Message": "needs two nodes"}},
	{"ContainerHierarchyTexts": ["[sig-apps] Job"], "LeafNodeType": "It", "LeafNodeText": "never ran", "State": "skipped"},
	{"ContainerHierarchyTexts": ["[sig-node] Pods"], "LeafNodeType": "It", "LeafNodeText": "wasn't asked for", "State": "skipped"}
]}]`

func report(t *testing.T) Report {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "report.json"), []byte(reportJSON), 0o644); err != nil {
		t.Fatal(err)
	}
	r, err := Read(filepath.Join(dir, "report.json"), "the log")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func summarize(out io.Writer, r Report, focus string, outOfScope ...Exclusion) error {
	s := r.Summarize(Scope{Focus: regexp.MustCompile(focus), OutOfScope: outOfScope, File: "scope.go"})
	s.Print(out)
	return s.Err()
}

func TestSummary(t *testing.T) {
	var out strings.Builder
	err := summarize(&out, report(t), `\[sig-apps\]`,
		Exclusion{Begins: "[sig-apps] Job", Has: "ever ran", Why: "not here", Lacks: func() string { return "a fourth dimension" }},
		Exclusion{Begins: "[sig-apps] Job is gone", Why: "it has gone"},
		Exclusion{Begins: "[sig-apps] Job", Has: "passes", Why: "not everywhere", Lacks: func() string { return "" }})
	for _, want := range []string{
		"[sig-apps] Job within fails\n    timed out (job.go:7)",
		"[sig-apps] Job skips itself\n    needs two nodes",
		"no test has such a name:\n  [sig-apps] Job is gone …",
		"Not run on this machine:\n  [sig-apps] Job … ever ran: a fourth dimension",
		"\n     1      1       1            1  [sig-apps] Job\n",
		"\n     1      1       1            1  all\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "[sig-node]") {
		t.Errorf("a group that wasn't asked for is told of:\n%s", out.String())
	}
	if err == nil || !strings.Contains(err.Error(), "1 of 2 tests failed") || !strings.Contains(err.Error(), "scope.go") {
		t.Errorf("error: %v", err)
	}
}

// What was asked for and didn't run failed, too.
func TestWhatNeverRanFailed(t *testing.T) {
	var out strings.Builder
	if err := summarize(&out, report(t), "never ran"); err == nil {
		t.Errorf("no error; printed:\n%s", out.String())
	}
	if err := summarize(&out, report(t), "no such test"); err == nil || !strings.Contains(err.Error(), "no test ran") {
		t.Errorf("error: %v", err)
	}
}

func TestBrokenSuite(t *testing.T) {
	var suites []Report
	broken := strings.Replace(reportJSON, `"LeafNodeType": "SynchronizedBeforeSuite", "State": "passed"`, `"LeafNodeType": "SynchronizedBeforeSuite", "State": "failed", "Failure": {"Message": "no nodes"}`, 1)
	if err := json.Unmarshal([]byte(broken), &suites); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	err := summarize(&out, suites[0], "passes")
	if err == nil || !strings.Contains(err.Error(), "suite broke") || !strings.Contains(out.String(), "SynchronizedBeforeSuite: no nodes") {
		t.Errorf("error: %v; printed:\n%s", err, out.String())
	}
}

func TestUnreadableReport(t *testing.T) {
	for _, content := range []string{"", "nonsense", "[]"} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "report.json"), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(filepath.Join(dir, "report.json"), "the log"); err == nil {
			t.Errorf("%q: no error", content)
		}
	}
}
