package ginkgoreport

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// Scope says which tests count.
type Scope struct {
	// Focus fits the tests that were asked for, as ginkgo matches it; but those that Skip fits, unless it is nil.
	Focus, Skip *regexp.Regexp
	// OutOfScope are those that were left out of the run, with All those that were to be.
	OutOfScope Exclusions
	All        bool
	// File is where OutOfScope stands, for the message about those that fit no test.
	File string
}

// excludes is what takes a test out of scope in this run, nil for nothing.
func (s Scope) excludes(name string) *Exclusion {
	if s.All {
		return nil
	}
	return s.OutOfScope.Of(name)
}

// counts are a group's results.
type counts struct {
	passed, failed, skipped, outOfScope int
}

// Summary is a run's results.
type Summary struct {
	scope  Scope
	report Report
	groups map[string]*counts
	// failed and skipped are tests with what they said.
	failed, skipped []string
	// broken are the suite's own steps that failed, such as its preparation.
	broken []string
	// stale are exclusions that fit no test of upstream's: it has renamed it, or it has gone.
	stale []string
	// lacking are exclusions that hold because of what this machine lacks, with that.
	lacking []string
	ran     int
}

// Summarize counts the tests that were asked for.
func (r Report) Summarize(scope Scope) Summary {
	s := Summary{scope: scope, report: r, groups: map[string]*counts{}}
	for _, test := range r.SpecReports {
		if test.LeafNodeType != "It" {
			if test.State != "passed" && test.State != "skipped" {
				s.broken = append(s.broken, fmt.Sprintf("%s: %s", test.LeafNodeType, test.why()))
			}
			continue
		}
		name := r.SuiteDescription + " " + test.name()
		if scope.Focus.MatchString(name) && (scope.Skip == nil || !scope.Skip.MatchString(name)) {
			s.add(test)
		}
	}
	for _, e := range scope.OutOfScope {
		if !slices.ContainsFunc(r.SpecReports, func(test Spec) bool { return test.LeafNodeType == "It" && e.Fits(test.name()) }) {
			s.stale = append(s.stale, e.Name())
		}
	}
	slices.Sort(s.failed)
	slices.Sort(s.skipped)
	slices.Sort(s.lacking)
	s.lacking = slices.Compact(s.lacking)
	return s
}

func (s *Summary) add(test Spec) {
	g := s.groups[test.group()]
	if g == nil {
		g = &counts{}
		s.groups[test.group()] = g
	}
	line := fmt.Sprintf("%s\n    %s", test.name(), test.why())
	out := s.scope.excludes(test.name())
	switch {
	case out != nil:
		g.outOfScope++
		if out.Lacks != nil {
			s.lacking = append(s.lacking, out.Name()+": "+out.Lacks())
		}
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

// Print prints the results: the tests that need a look by name, then a line for each group.
func (s Summary) Print(out io.Writer) {
	list := func(title string, lines []string) {
		if len(lines) > 0 {
			fmt.Fprintf(out, "\n%s:\n  %s\n", title, strings.Join(lines, "\n  "))
		}
	}
	list("Not run on this machine", s.lacking)
	list("Skipped themselves", s.skipped)
	list("Failed", s.failed)
	list("Broken", s.broken)
	list("Out of scope, but no test has such a name", s.stale)
	// The names come last: some are three lines long.
	fmt.Fprintf(out, "\n%6s %6s %7s %12s\n", "passed", "failed", "skipped", "out of scope")
	row := func(name string, c counts) {
		fmt.Fprintf(out, "%6d %6d %7d %12d  %s\n", c.passed, c.failed, c.skipped, c.outOfScope, name)
	}
	var all counts
	names := make([]string, 0, len(s.groups))
	for name := range s.groups {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		c := s.groups[name]
		row(name, *c)
		all = counts{all.passed + c.passed, all.failed + c.failed, all.skipped + c.skipped, all.outOfScope + c.outOfScope}
	}
	row("all", all)
}

// Err says what is wrong with the results.
func (s Summary) Err() error {
	var errs []error
	if len(s.failed) > 0 {
		errs = append(errs, fmt.Errorf("%d of %d tests failed", len(s.failed), s.ran))
	}
	if len(s.broken) > 0 {
		errs = append(errs, errors.New("upstream's suite broke"))
	}
	if len(s.stale) > 0 {
		errs = append(errs, fmt.Errorf("%s names tests that upstream hasn't: correct it and docs/conformance.md", s.scope.File))
	}
	if s.ran == 0 {
		errs = append(errs, errors.New("no test ran: does the focus fit any?"))
	}
	if !s.report.SuiteSucceeded && len(errs) == 0 {
		errs = append(errs, fmt.Errorf("ginkgo says that the suite failed: %s", strings.Join(s.report.SpecialSuiteFailureReasons, "; ")))
	}
	return errors.Join(errs...)
}
