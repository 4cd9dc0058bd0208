package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// suiteReport is what ginkgo writes of a suite (types.Report), as far as it is read here.
type suiteReport struct {
	SuiteDescription           string
	SuiteSucceeded             bool
	SpecialSuiteFailureReasons []string
	SpecReports                []spec
}

// spec is what ginkgo writes of a test (types.SpecReport).
type spec struct {
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
func (s spec) name() string {
	return strings.Join(append(slices.Clone(s.ContainerHierarchyTexts), s.LeafNodeText), " ")
}

// group is the outermost container's: [sig-apps] Job.
func (s spec) group() string {
	if len(s.ContainerHierarchyTexts) == 0 {
		return s.LeafNodeType
	}
	return s.ContainerHierarchyTexts[0]
}

// skippedItself says whether the test ran and found that it can't: ginkgo calls what wasn't selected skipped, too.
func (s spec) skippedItself() bool { return s.State == "skipped" && s.Failure.Message != "" }

// why is the first line of what a test that failed or skipped itself said, and where.
func (s spec) why() string {
	message, _, _ := strings.Cut(strings.TrimSpace(s.Failure.Message), "\n")
	if s.Failure.Location.FileName == "" {
		return message
	}
	return fmt.Sprintf("%s (%s:%d)", message, filepath.Base(s.Failure.Location.FileName), s.Failure.Location.LineNumber)
}

func readReport(dir string) (suiteReport, error) {
	var suites []suiteReport
	path := filepath.Join(dir, reportName)
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, &suites)
	}
	if err == nil && len(suites) != 1 {
		err = fmt.Errorf("%d suites, want 1", len(suites))
	}
	if err != nil {
		return suiteReport{}, fmt.Errorf("read ginkgo's report %s: %w; see %s beside it for what kept the tests from running", path, err, logName)
	}
	return suites[0], nil
}

// counts are a group's results.
type counts struct {
	passed, failed, skipped, outOfScope int
}

// summary is a run's results.
type summary struct {
	groups map[string]*counts
	// failed and skipped are tests with what they said.
	failed, skipped []string
	// broken are the suite's own steps that failed, such as its preparation.
	broken []string
	// stale are patterns of outOfScope that fit no test of upstream's.
	stale []string
	ran   int
}

func count(r suiteReport, focus *regexp.Regexp, all bool) summary {
	s := summary{groups: map[string]*counts{}, stale: staleOf(r)}
	for _, test := range r.SpecReports {
		if test.LeafNodeType != "It" {
			if test.State != "passed" && test.State != "skipped" {
				s.broken = append(s.broken, fmt.Sprintf("%s: %s", test.LeafNodeType, test.why()))
			}
			continue
		}
		if focus.MatchString(r.SuiteDescription + " " + test.name()) {
			s.add(test, all)
		}
	}
	slices.Sort(s.failed)
	slices.Sort(s.skipped)
	return s
}

// add counts a test that was asked for.
func (s *summary) add(test spec, all bool) {
	g := s.groups[test.group()]
	if g == nil {
		g = &counts{}
		s.groups[test.group()] = g
	}
	line := fmt.Sprintf("%s\n    %s", test.name(), test.why())
	switch {
	case !all && isOutOfScope(test.name()):
		g.outOfScope++
	case test.State == "passed":
		g.passed++
		s.ran++
	case test.skippedItself():
		g.skipped++
		s.skipped = append(s.skipped, line)
	default:
		// Also what was asked for and never ran, because the suite broke or was interrupted.
		g.failed++
		s.ran++
		s.failed = append(s.failed, line)
	}
}

// staleOf are the patterns that fit no test: upstream has renamed it, or it has gone.
func staleOf(r suiteReport) []string {
	var stale []string
	for _, e := range outOfScope {
		if !slices.ContainsFunc(r.SpecReports, func(test spec) bool { return test.LeafNodeType == "It" && e.fits(test.name()) }) {
			stale = append(stale, e.test)
		}
	}
	return stale
}

// summarize prints the results, and returns an error if they aren't what they should be.
func summarize(out io.Writer, r suiteReport, s settings) error {
	focus, err := regexp.Compile(s.focus)
	if err != nil {
		return err
	}
	sum := count(r, focus, s.all)
	sum.print(out)
	return sum.err(r)
}

func (s *summary) print(out io.Writer) {
	list := func(title string, lines []string) {
		if len(lines) > 0 {
			fmt.Fprintf(out, "\n%s:\n  %s\n", title, strings.Join(lines, "\n  "))
		}
	}
	list("Skipped themselves", s.skipped)
	list("Failed", s.failed)
	list("Broken", s.broken)
	list("Out of scope, but no test has such a name", s.stale)
	fmt.Fprintf(out, "\n%-40s %6s %6s %7s %12s\n", "", "passed", "failed", "skipped", "out of scope")
	names := make([]string, 0, len(s.groups))
	for name := range s.groups {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		c := s.groups[name]
		fmt.Fprintf(out, "%-40s %6d %6d %7d %12d\n", name, c.passed, c.failed, c.skipped, c.outOfScope)
	}
}

// err says what is wrong with the results.
func (s *summary) err(r suiteReport) error {
	var errs []error
	if len(s.failed) > 0 {
		errs = append(errs, fmt.Errorf("%d of %d tests failed", len(s.failed), s.ran))
	}
	if len(s.broken) > 0 {
		errs = append(errs, errors.New("upstream's suite broke"))
	}
	if len(s.stale) > 0 {
		errs = append(errs, errors.New("scope.go names tests that upstream hasn't: correct it and docs/conformance.md"))
	}
	if s.ran == 0 {
		errs = append(errs, errors.New("no test ran: does the focus fit any?"))
	}
	if !r.SuiteSucceeded && len(errs) == 0 {
		errs = append(errs, fmt.Errorf("ginkgo says that the suite failed: %s", strings.Join(r.SpecialSuiteFailureReasons, "; ")))
	}
	return errors.Join(errs...)
}
