package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"errand.dev/errand/test/ginkgoreport"
)

const (
	// interruptGrace is how long critest may take to clean up after an interrupt.
	interruptGrace = 30 * time.Second
	// suiteTimeout is for all tests together.
	suiteTimeout = time.Hour
)

// suite is upstream's critest, to be run.
type suite struct {
	settings
	socket string
	stderr io.Writer
}

// reportPath is that of ginkgo's report.
func (s *suite) reportPath() string { return filepath.Join(s.report, "report.json") }

// logPath is that of what critest prints.
func (s *suite) logPath() string { return filepath.Join(s.report, "critest.log") }

// run runs the tests, one after the other. Tests that fail are no error here: the report tells of them.
func (s *suite) run(ctx context.Context) error {
	log, err := os.Create(s.logPath())
	if err != nil {
		return err
	}
	defer log.Close()
	fmt.Fprintf(s.stderr, "running upstream's critest; what it prints is in %s\n", log.Name())
	stop := ginkgoreport.Follow(log.Name(), s.stderr)
	defer stop()
	cmd := exec.CommandContext(ctx, filepath.Join(s.tools, "critest"), s.args()...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = interruptGrace
	err = cmd.Run()
	var exit *exec.ExitError
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil && !errors.As(err, &exit) {
		return fmt.Errorf("run critest: %w", err)
	}
	return nil
}

func (s *suite) args() []string {
	args := []string{
		"-runtime-endpoint", "unix://" + s.socket,
		// There may be one of another runtime's on this machine.
		"-config", os.DevNull,
		"-test.timeout", "0",
		"-ginkgo.timeout", suiteTimeout.String(),
		"-ginkgo.no-color", "-ginkgo.v",
		"-ginkgo.json-report", s.reportPath(),
	}
	if focus := s.focus.String(); focus != "" {
		args = append(args, "-ginkgo.focus", focus)
	}
	if !s.all {
		args = append(args, outOfScope.Args("-ginkgo.skip")...)
	}
	return args
}
