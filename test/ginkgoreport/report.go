// Package ginkgoreport reads what ginkgo reports of an upstream's suite of tests, and tells what passed, failed and was skipped, and
// what of it is out of scope. It is for the programs that run such suites against errand.
package ginkgoreport

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Report is what ginkgo writes of a suite (types.Report), as far as it is read here.
type Report struct {
	SuiteDescription           string
	SuiteSucceeded             bool
	SpecialSuiteFailureReasons []string
	SpecReports                []Spec
}

// Spec is what ginkgo writes of a test (types.SpecReport).
type Spec struct {
	ContainerHierarchyTexts []string
	LeafNodeType            string
	LeafNodeText            string
	State                   string
	RunTime                 time.Duration
	Failure                 struct {
		Message  string
		Location struct {
			FileName   string
			LineNumber int
		}
	}
}

// name is the test's full name. Ginkgo matches regular expressions against it with the suite's before it.
func (s Spec) name() string {
	return strings.Join(append(slices.Clone(s.ContainerHierarchyTexts), s.LeafNodeText), " ")
}

// group is the outermost container's: [sig-apps] Job.
func (s Spec) group() string {
	if len(s.ContainerHierarchyTexts) == 0 {
		return s.LeafNodeType
	}
	return s.ContainerHierarchyTexts[0]
}

// skippedItself says whether the test ran and found that it can't: ginkgo calls what wasn't selected skipped, too.
func (s Spec) skippedItself() bool { return s.State == "skipped" && s.Failure.Message != "" }

// why is the first line of what a test that failed or skipped itself said, and where.
func (s Spec) why() string {
	message, _, _ := strings.Cut(strings.TrimSpace(s.Failure.Message), "\n")
	if s.Failure.Location.FileName == "" {
		return message
	}
	return fmt.Sprintf("%s (%s:%d)", message, filepath.Base(s.Failure.Location.FileName), s.Failure.Location.LineNumber)
}

// Read reads the report at path. log is what the suite printed, for the message of an error.
func Read(path, log string) (Report, error) {
	var suites []Report
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, &suites)
	}
	if err == nil && len(suites) != 1 {
		err = fmt.Errorf("%d suites, want 1", len(suites))
	}
	if err != nil {
		return Report{}, fmt.Errorf("read ginkgo's report %s: %w; see %s for what kept the tests from running", path, err, log)
	}
	return suites[0], nil
}
