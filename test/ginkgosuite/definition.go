// Package ginkgosuite runs a suite of upstream's that is written with ginkgo
// against an errand of its own: command line, report, the errand's start and end,
// the suite's own program, and what is told of it all. Which images the tests
// need, and what the program is called with, its command knows; what the report
// means is ginkgoreport's.
package ginkgosuite

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"

	"errand.dev/errand/test/ginkgoreport"
)

// Definition is a command that runs a suite.
type Definition struct {
	// Name is the command's, its make target's, and that of its folders in bin and
	// dist.
	Name string
	// Errand is which of errand's commands the tests run against.
	Errand string
	// Programs are what it needs in the folder bin.
	Programs []string
	// DefaultFocus fits the tests to run if none are asked for.
	DefaultFocus string
	// Skip fits the tests that the suite itself leaves out; nil fits none.
	Skip *regexp.Regexp
	// OutOfScope are the tests that are left out, and File where they stand.
	OutOfScope ginkgoreport.Exclusions
	File       string
	// Flags are the command's own; nil for none.
	Flags func(*flag.FlagSet)
}

// Suite is a suite to be run, as the command line says. Make it with Parse.
type Suite struct {
	Definition
	// Bin is the folder of errand's programs; Tools, in it, that of upstream's.
	Bin, Tools string
	// Report is the folder for what the run leaves to read.
	Report string
	Focus  *regexp.Regexp
	// All also runs the tests that are out of scope.
	All bool
	// Args are further arguments of the errand's.
	Args []string
	// Stderr is told how far the run is.
	Stderr io.Writer
}

// Parse reads the command line, and looks whether the run can begin.
func (d Definition) Parse(args []string, stderr io.Writer) (*Suite, error) {
	s := &Suite{Definition: d, Stderr: stderr}
	flags := flag.NewFlagSet(d.Name, flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprintf(stderr, "Usage: %s [flags] [-- further arguments of %s]\n", d.Name, d.Errand)
		flags.PrintDefaults()
	}
	flags.StringVar(&s.Bin, "bin", "bin", "`folder` of errand's programs, and "+d.Name+"/ with upstream's")
	flags.StringVar(&s.Report, "report", filepath.Join("dist", d.Name), "`folder` for the report and what errand and the tests printed")
	focus := flags.String("focus", "", "`regular expression` of the tests to run (default "+cmp.Or(d.DefaultFocus, "all")+")")
	flags.BoolVar(&s.All, "all", false, "also run the tests that are out of scope")
	if d.Flags != nil {
		d.Flags(flags)
	}
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	s.Args = flags.Args()
	var err error
	if s.Focus, err = regexp.Compile(cmp.Or(*focus, d.DefaultFocus)); err != nil {
		return nil, fmt.Errorf("-focus %q: %w", *focus, err)
	}
	return s, s.prepare()
}

func (s *Suite) prepare() error {
	if os.Geteuid() != 0 {
		return errors.New("needs root, for containers")
	}
	for _, path := range []*string{&s.Bin, &s.Report} {
		abs, err := filepath.Abs(*path)
		if err != nil {
			return err
		}
		*path = abs
	}
	s.Tools = filepath.Join(s.Bin, s.Name)
	for _, name := range s.Programs {
		if _, err := os.Stat(filepath.Join(s.Bin, name)); err != nil {
			return fmt.Errorf("%w: run make %s", err, s.Name)
		}
	}
	return os.MkdirAll(s.Report, 0o755)
}
