// Command conformance runs upstream's own end-to-end tests (e2e.test, compiled from k8s.io/kubernetes by the module in upstream)
// against errand serve with real containers, and tells what passed, failed, was skipped, and is out of scope and why.
//
// It starts all that the tests need, and ends it: an image registry on loopback with stand-ins for upstream's images, and an errand
// with a data directory of its own. It needs root, and the binaries that `make conformance` builds. It fails if a test fails that
// isn't out of scope, if none runs, or if something is left on the host.
package main

import (
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

	"golang.org/x/sys/unix"

	"errand.dev/errand/test/ginkgosuite"
	"errand.dev/errand/test/harness"
	"errand.dev/errand/test/registry"
)

// leftovers are what upstream's tests make on the node, and leave there.
var leftovers = []string{"/tmp/job-e2e", "/tmp/host-path-type-*", "/tmp/local-volume-test-*"}

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

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	s, procs, err := parse(args, stderr)
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
	conf := filepath.Join(dir, "registries.conf")
	images, err := serveImages(ctx, s.Tools, conf, stderr)
	if err != nil {
		return err
	}
	defer images.Close()
	runtime, err := ociRuntime(s.Bin)
	if err != nil {
		return err
	}
	return s.Run(ctx, harness.Config{
		Bin: s.Bin, DataDir: filepath.Join(dir, "data"), RegistriesConf: conf,
		Args: append([]string{"-v=2", "--runtime", "runc=" + runtime, "--runtime", testHandler + "=" + runtime, "--default-runtime", "runc"}, s.Args...),
	}, stdout, func(ctx context.Context, e *harness.Errand) error {
		return s.Exec(ctx, "ginkgo", ginkgoArgs(s, procs, e.Kubeconfig())...)
	})
}

// parse reads the command line: which tests are to run, and how many at a time.
func parse(args []string, stderr io.Writer) (s *ginkgosuite.Suite, procs int, err error) {
	s, err = ginkgosuite.Definition{
		Name:         "conformance",
		Errand:       "errand serve",
		Programs:     []string{"errand", "errand-shim", "kubectl", "conformance/e2e.test", "conformance/ginkgo"},
		DefaultFocus: defaultFocus,
		OutOfScope:   outOfScope,
		File:         "test/conformance/scope.go",
		Flags: func(flags *flag.FlagSet) {
			flags.IntVar(&procs, "procs", 12, "how many tests to run at a time; they mostly wait, and take 150 MB each")
		},
	}.Parse(args, stderr)
	return s, procs, err
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
