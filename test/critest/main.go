// Command critest runs upstream's validation of container runtimes (critest, compiled from sigs.k8s.io/cri-tools by the module in
// upstream) against errand cri, and tells what passed, failed, was skipped, and is out of scope and why.
//
// It starts all that the tests need, and ends it: an image registry on loopback with stand-ins for upstream's images, and an errand
// cri with a data directory of its own. It needs root, the host's ports 12000 to 12003, and the binaries that `make critest` builds.
// It fails if a test fails that isn't out of scope, if none runs, or if something is left on the host.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"errand.dev/errand/test/ginkgoreport"
	"errand.dev/errand/test/harness"
)

// endTimeout bounds stopping: far more than it takes.
const endTimeout = time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "critest:", err)
		os.Exit(1)
	}
}

// benchmarks are what critest itself leaves out of a validation.
var benchmarks = regexp.MustCompile("benchmark")

// settings are what the command line says.
type settings struct {
	// bin is the folder of errand and errand-shim; tools, in it, that of upstream's programs.
	bin, tools string
	// report is the folder for what the run leaves to read.
	report string
	focus  *regexp.Regexp
	// all also runs the tests that are out of scope.
	all bool
	// cri are further arguments of errand cri.
	cri []string
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	s, err := parse(args, stderr)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("/tmp", "errand-critest-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	conf := filepath.Join(dir, "registries.conf")
	images, err := serveImages(s.tools, filepath.Join(dir, "blobs"), conf)
	if err != nil {
		return err
	}
	defer images.Close()
	suite := &suite{settings: s, socket: filepath.Join(dir, "cri.sock"), stderr: stderr}
	// An earlier run's would be taken for this one's.
	if err := os.Remove(suite.reportPath()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	ranErr := withErrand(ctx, s, harness.Config{
		Bin: s.bin, DataDir: filepath.Join(dir, "data"), CRI: suite.socket, RegistriesConf: conf, Args: append([]string{"-v=4"}, s.cri...),
	}, suite.run)
	r, err := ginkgoreport.Read(suite.reportPath(), suite.logPath())
	if err != nil {
		return cmp.Or(ranErr, err)
	}
	// Also of a run that was interrupted.
	sum := r.Summarize(ginkgoreport.Scope{Focus: s.focus, Skip: benchmarks, OutOfScope: outOfScope, All: s.all, File: "test/critest/scope.go"})
	sum.Print(stdout)
	return errors.Join(ranErr, sum.Err())
}

func parse(args []string, stderr io.Writer) (settings, error) {
	var s settings
	flags := flag.NewFlagSet("critest", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprintln(stderr, "Usage: critest [flags] [-- further arguments of errand cri]")
		flags.PrintDefaults()
	}
	flags.StringVar(&s.bin, "bin", "bin", "`folder` of errand and errand-shim, and critest/ with upstream's programs")
	flags.StringVar(&s.report, "report", "dist/critest", "`folder` for the report and what errand and the tests printed")
	focus := flags.String("focus", "", "`regular expression` of the tests to run (default all)")
	flags.BoolVar(&s.all, "all", false, "also run the tests that are out of scope")
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	s.cri = flags.Args()
	var err error
	if s.focus, err = regexp.Compile(*focus); err != nil {
		return s, fmt.Errorf("-focus %q: %w", *focus, err)
	}
	if os.Geteuid() != 0 {
		return s, errors.New("needs root, for containers")
	}
	for _, path := range []*string{&s.bin, &s.report} {
		abs, err := filepath.Abs(*path)
		if err != nil {
			return s, err
		}
		*path = abs
	}
	s.tools = filepath.Join(s.bin, "critest")
	for _, name := range []string{"errand", "errand-shim", "critest/critest", "critest/nonewprivs"} {
		if _, err := os.Stat(filepath.Join(s.bin, name)); err != nil {
			return s, fmt.Errorf("%w: run make critest", err)
		}
	}
	return s, os.MkdirAll(s.report, 0o755)
}

// withErrand runs do against an errand cri, ends that, and looks for what it left. What do says counts most.
func withErrand(ctx context.Context, s settings, cfg harness.Config, do func(context.Context) error) error {
	log, err := os.Create(filepath.Join(s.report, "errand.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cfg.Log = log
	e, err := harness.Launch(cfg)
	if err != nil {
		return err
	}
	// One that doesn't become ready may have something on the host already.
	if err := e.AwaitReady(ctx); err != nil {
		return errors.Join(err, e.Kill(), e.TakeOff(ctx))
	}
	err = do(ctx)
	// Also after an interrupt.
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancel()
	_, stopErr := e.Stop(ending)
	return errors.Join(err, stopErr, e.TakeOff(ctx))
}
