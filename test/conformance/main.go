// Command conformance runs upstream's own end-to-end tests (e2e.test, compiled from k8s.io/kubernetes by the module in upstream)
// against errand serve with real containers, and tells what passed, failed, was skipped, and is out of scope and why.
//
// It starts all that the tests need, and ends it: an image registry on loopback with stand-ins for upstream's images, and an errand
// with a data directory of its own. It needs root, and the binaries that `make conformance` builds. It fails if a test fails that
// isn't out of scope, if none runs, or if something is left on the host.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"errand.dev/errand/test/ginkgoreport"
	"errand.dev/errand/test/harness"
	"errand.dev/errand/test/registry"
)

// leftovers are what upstream's tests make on the node, and leave there.
var leftovers = []string{"/tmp/job-e2e", "/tmp/host-path-type-*", "/tmp/local-volume-test-*"}

// endTimeout bounds stopping: far more than it takes.
const endTimeout = time.Minute

func main() {
	code, err := 0, error(nil)
	switch os.Getenv(stageEnv) {
	case stageRun:
		err = runTests()
	case stageInit:
		code, err = initOwnHost()
	default:
		code, err = inOwnHost()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
	os.Exit(code)
}

func runTests() error {
	if err := os.Unsetenv(stageEnv); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	return run(ctx, os.Args[1:], os.Stdout, os.Stderr)
}

// settings are what the command line says.
type settings struct {
	// bin is the folder of errand, errand-shim and kubectl; tools, in it, that of upstream's programs.
	bin, tools string
	// report is the folder for what the run leaves to read.
	report string
	focus  string
	// all also runs the tests that are out of scope.
	all   bool
	procs int
	// serve are further arguments of errand serve.
	serve []string
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	s, err := parse(args, stderr)
	if err != nil {
		return err
	}
	suite, err := newSuite(s, stderr)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("/tmp", "errand-conformance-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	before := found(leftovers)
	defer func() {
		for _, path := range found(leftovers) {
			if !slices.Contains(before, path) {
				os.RemoveAll(path)
			}
		}
	}()
	images, err := serveImages(ctx, s.tools, filepath.Join(dir, "registries.conf"), stderr)
	if err != nil {
		return err
	}
	defer images.Close()
	ranErr := withErrand(ctx, s, dir, suite.run)
	r, err := ginkgoreport.Read(filepath.Join(s.report, reportName), filepath.Join(s.report, logName))
	if err != nil {
		return cmp.Or(ranErr, err)
	}
	// Also of a run that was interrupted.
	sum := r.Summarize(ginkgoreport.Scope{Focus: suite.focus, OutOfScope: outOfScope, All: s.all, File: "test/conformance/scope.go"})
	sum.Print(stdout)
	return errors.Join(ranErr, sum.Err())
}

// found are the files that the patterns match.
func found(patterns []string) []string {
	var paths []string
	for _, pattern := range patterns {
		match, _ := filepath.Glob(pattern) // it only fails for a wrong pattern
		paths = append(paths, match...)
	}
	return paths
}

func parse(args []string, stderr io.Writer) (settings, error) {
	var s settings
	flags := flag.NewFlagSet("conformance", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprintln(stderr, "Usage: conformance [flags] [-- further arguments of errand serve]")
		flags.PrintDefaults()
	}
	flags.StringVar(&s.bin, "bin", "bin", "`folder` of errand, errand-shim and kubectl, and conformance/ with upstream's programs")
	flags.StringVar(&s.report, "report", "dist/conformance", "`folder` for the report and what errand and the tests printed")
	flags.StringVar(&s.focus, "focus", defaultFocus, "`regular expression` of the tests to run")
	flags.BoolVar(&s.all, "all", false, "also run the tests that are out of scope")
	flags.IntVar(&s.procs, "procs", 12, "how many tests to run at a time; they mostly wait, and take 150 MB each")
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	s.serve = flags.Args()
	if s.focus == "" {
		s.focus = defaultFocus
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
	s.tools = filepath.Join(s.bin, "conformance")
	for _, name := range []string{"errand", "errand-shim", "kubectl", "conformance/e2e.test", "conformance/ginkgo"} {
		if _, err := os.Stat(filepath.Join(s.bin, name)); err != nil {
			return s, fmt.Errorf("%w: run make conformance", err)
		}
	}
	return s, os.MkdirAll(s.report, 0o755)
}

// withErrand runs do against an errand whose files are below dir, ends it, and looks for what it left. What do says counts most.
func withErrand(ctx context.Context, s settings, dir string, do func(context.Context, *harness.Errand) error) error {
	log, err := os.Create(filepath.Join(s.report, "errand.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	runtime, err := ociRuntime(s.bin)
	if err != nil {
		return err
	}
	cfg := harness.Config{
		Bin: s.bin, DataDir: filepath.Join(dir, "data"), RegistriesConf: filepath.Join(dir, "registries.conf"), Log: log,
		Args: append([]string{"-v=2", "--runtime", "runc=" + runtime, "--runtime", testHandler + "=" + runtime, "--default-runtime", "runc"}, s.serve...),
	}
	e, err := harness.Launch(cfg)
	if err != nil {
		return err
	}
	// One that doesn't become ready may have something on the host already.
	if err := e.AwaitReady(ctx); err != nil {
		return errors.Join(err, e.Kill(), e.TakeOff(ctx))
	}
	err = do(ctx, e)
	// Also after an interrupt.
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancel()
	_, stopErr := e.Stop(ending)
	return errors.Join(err, stopErr, e.TakeOff(ctx))
}

// testHandler is the handler that upstream's tests of RuntimeClasses count on.
const testHandler = "test-handler"

// ociRuntime finds the runc that errand would.
func ociRuntime(bin string) (string, error) {
	if path := filepath.Join(bin, "runc"); unix.Access(path, unix.X_OK) == nil {
		return path, nil
	}
	path, err := exec.LookPath("runc")
	if err != nil {
		return "", fmt.Errorf("%w: run make conformance", err)
	}
	return filepath.Abs(path)
}

// serveImages starts the registry that stands in for upstream's, and writes the registries.conf that leads there.
func serveImages(ctx context.Context, tools, conf string, stderr io.Writer) (*registry.Server, error) {
	images, err := registry.Start(registry.Options{Dir: filepath.Join(filepath.Dir(conf), "blobs")})
	if err != nil {
		return nil, err
	}
	if err := pushStandIns(ctx, images, tools, conf, stderr); err != nil {
		return nil, errors.Join(err, images.Close())
	}
	return images, nil
}
