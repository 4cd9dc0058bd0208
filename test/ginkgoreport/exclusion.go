package ginkgoreport

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
)

// Exclusion takes tests out of scope.
type Exclusion struct {
	// Begins is how the tests' full names begin, and Has what stands in them after that, such as a label. Either may be empty.
	Begins, Has string
	Why         string
	// Lacks, if set, is what only some machines lack for the tests, and the exclusion holds only there: it returns what is missing,
	// "" for nothing.
	Lacks func() string
}

// Name is how people are told which tests are meant.
func (e Exclusion) Name() string {
	return strings.TrimSpace(strings.TrimSpace(e.Begins) + " … " + e.Has)
}

// Holds says whether the tests are out of scope on this machine.
func (e Exclusion) Holds() bool { return e.Lacks == nil || e.Lacks() != "" }

// Pattern fits the tests, as a regular expression for ginkgo, which matches it against the suite's name and the test's.
func (e Exclusion) Pattern() string {
	return " " + regexp.QuoteMeta(e.Begins) + ".*" + regexp.QuoteMeta(e.Has)
}

// Fits says whether the test with that full name is meant.
func (e Exclusion) Fits(name string) bool {
	rest, ok := strings.CutPrefix(name, e.Begins)
	return ok && strings.Contains(rest, e.Has)
}

// Exclusions are what a suite's runner leaves out.
type Exclusions []Exclusion

// Of is what takes a test out of scope on this machine, nil for nothing.
func (x Exclusions) Of(name string) *Exclusion {
	i := slices.IndexFunc(x, func(e Exclusion) bool { return e.Fits(name) && e.Holds() })
	if i < 0 {
		return nil
	}
	return &x[i]
}

// Args are ginkgo's arguments to leave out what is out of scope on this machine; flag is its name for that, --skip or -ginkgo.skip.
func (x Exclusions) Args(flag string) []string {
	var args []string
	for _, e := range x {
		if e.Holds() {
			args = append(args, flag, e.Pattern())
		}
	}
	return args
}

// Everywhere are those that hold on every machine.
func (x Exclusions) Everywhere() Exclusions {
	return x.where(func(e Exclusion) bool { return e.Lacks == nil })
}

// SomeMachines are those that hold where something is lacking.
func (x Exclusions) SomeMachines() Exclusions {
	return x.where(func(e Exclusion) bool { return e.Lacks != nil })
}

func (x Exclusions) where(keep func(Exclusion) bool) Exclusions {
	var kept Exclusions
	for _, e := range x {
		if keep(e) {
			kept = append(kept, e)
		}
	}
	return kept
}

// CheckTable returns an error unless the table with that head in a page of Markdown tells of the exclusions and of nothing else.
func (x Exclusions) CheckTable(page, head string) error {
	b, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	var want strings.Builder
	for _, e := range x {
		fmt.Fprintf(&want, "| %s | %s |\n", e.Name(), e.Why)
	}
	_, table, found := strings.Cut(string(b), head+"\n|---|---|\n")
	if !found {
		return fmt.Errorf("%s has no table %q; it should be:\n%s", page, head, want.String())
	}
	if table, _, _ = strings.Cut(table, "\n\n"); strings.TrimSpace(table) != strings.TrimSpace(want.String()) {
		return fmt.Errorf("%s has another table %q than the code; it should be:\n%s", page, head, want.String())
	}
	return nil
}
