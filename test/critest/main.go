// Command critest runs upstream's validation of container runtimes (critest, compiled from sigs.k8s.io/cri-tools by the module in
// upstream) against errand cri, and tells what passed, failed, was skipped, and is out of scope and why.
//
// It starts all that the tests need, and ends it: an image registry on loopback with stand-ins for upstream's images, and an errand
// cri with a data directory of its own. It needs root, the host's ports 12000 to 12003, and the binaries that `make critest` builds.
// It fails if a test fails that isn't out of scope, if none runs, or if something is left on the host.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"errand.dev/errand/test/ginkgosuite"
	"errand.dev/errand/test/harness"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "critest:", err)
		os.Exit(1)
	}
}

var definition = ginkgosuite.Definition{
	Name:     "critest",
	Errand:   "errand cri",
	Programs: []string{"errand", "errand-shim", "critest/critest", "critest/nonewprivs"},
	// What critest itself leaves out of a validation.
	Skip:       regexp.MustCompile("benchmark"),
	OutOfScope: outOfScope,
	File:       "test/critest/scope.go",
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	s, err := definition.Parse(args, stderr)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("/tmp", "errand-critest-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	conf, socket := filepath.Join(dir, "registries.conf"), filepath.Join(dir, "cri.sock")
	images, err := serveImages(s.Tools, filepath.Join(dir, "blobs"), conf)
	if err != nil {
		return err
	}
	defer images.Close()
	return s.Run(ctx, harness.Config{
		Bin: s.Bin, DataDir: filepath.Join(dir, "data"), CRI: socket, RegistriesConf: conf, Args: append([]string{"-v=4"}, s.Args...),
	}, stdout, func(ctx context.Context, _ *harness.Errand) error {
		return s.Exec(ctx, "critest", critestArgs(s, socket)...)
	})
}

// suiteTimeout is for all tests together.
const suiteTimeout = time.Hour

func critestArgs(s *ginkgosuite.Suite, socket string) []string {
	args := []string{
		"-runtime-endpoint", "unix://" + socket,
		// There may be one of another runtime's on this machine.
		"-config", os.DevNull,
		"-test.timeout", "0",
		"-ginkgo.timeout", suiteTimeout.String(),
		"-ginkgo.no-color", "-ginkgo.v",
		"-ginkgo.json-report", s.ReportPath(),
	}
	if focus := s.Focus.String(); focus != "" {
		args = append(args, "-ginkgo.focus", focus)
	}
	return append(args, s.Skips("-ginkgo.skip")...)
}
