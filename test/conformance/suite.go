package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"time"

	"errand.dev/errand/test/ginkgoreport"
	"errand.dev/errand/test/harness"
)

const (
	// reportName is ginkgo's report, in the report's folder.
	reportName = "report.json"
	// logName is what ginkgo prints, beside it.
	logName = "e2e.log"
	// interruptGrace is how long e2e.test may take to clean up after an interrupt.
	interruptGrace = 30 * time.Second
	// suiteTimeout is for all tests together; [Slow] ones alone wait for five minutes.
	suiteTimeout = 3 * time.Hour
)

// suite is upstream's e2e.test, to be run.
type suite struct {
	settings
	focus  *regexp.Regexp
	stderr io.Writer
}

func newSuite(s settings, stderr io.Writer) (*suite, error) {
	focus, err := regexp.Compile(s.focus)
	if err != nil {
		return nil, fmt.Errorf("-focus %q: %w", s.focus, err)
	}
	return &suite{settings: s, focus: focus, stderr: stderr}, nil
}

// run runs the tests against an errand. Tests that fail are no error here: the report tells of them.
func (s *suite) run(ctx context.Context, e *harness.Errand) error {
	if err := os.Remove(filepath.Join(s.report, reportName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	log, err := os.Create(filepath.Join(s.report, logName))
	if err != nil {
		return err
	}
	defer log.Close()
	fmt.Fprintf(s.stderr, "running upstream's tests of %s; what they print is in %s\n", s.focus, log.Name())
	stop := ginkgoreport.Follow(log.Name(), s.stderr)
	defer stop()
	cmd := exec.CommandContext(ctx, filepath.Join(s.tools, "ginkgo"), s.args(e.Kubeconfig())...)
	cmd.Stdout, cmd.Stderr = log, log
	// A group of its own, so that the interrupt goes to all of ginkgo's processes, once.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = interruptGrace
	err = cmd.Run()
	var exit *exec.ExitError
	if ctx.Err() != nil {
		return errors.Join(ctx.Err(), ignoreGone(syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)))
	}
	if err != nil && !errors.As(err, &exit) {
		return fmt.Errorf("run ginkgo: %w", err)
	}
	return nil
}

func ignoreGone(err error) error {
	if errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return err
}

func (s *suite) args(kubeconfig string) []string {
	args := []string{
		"--procs", strconv.Itoa(s.procs), "--timeout", suiteTimeout.String(), "--no-color", "-v",
		"--output-dir", s.report, "--json-report", reportName,
		"--focus", s.focus.String(),
	}
	if !s.all {
		args = append(args, outOfScope.Args("--skip")...)
	}
	return append(args, filepath.Join(s.tools, "e2e.test"), "--",
		"--kubeconfig", kubeconfig,
		"--kubectl-path", filepath.Join(s.bin, "kubectl"),
		"--provider", "skeleton",
		// There are no DaemonSets to wait for, and no system pods.
		"--allowed-not-ready-nodes", "-1",
		"--minStartupPods", "-1",
		// Its logs are in the report's folder.
		"--disable-log-dump",
	)
}
