package ginkgosuite

import (
	"cmp"
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
	"errand.dev/errand/test/harness"
)

const (
	// endTimeout bounds the errand's stopping: far more than it takes.
	endTimeout = time.Minute
	// interruptGrace is how long tests may take to clean up after an interrupt.
	interruptGrace = 30 * time.Second
	// reportName is ginkgo's report, in the report's folder.
	reportName = "report.json"
)

// ReportPath is that of ginkgo's report.
func (s *Suite) ReportPath() string { return filepath.Join(s.Report, reportName) }

// logPath is that of what the suite's program prints.
func (s *Suite) logPath() string { return filepath.Join(s.Report, s.Name+".log") }

// Run runs do, which runs the suite's program, against an errand, ends that, looks
// for what it left, and tells what came of the tests. An error means that a test
// failed that isn't out of scope, that none ran, or that something went wrong
// beside them.
func (s *Suite) Run(ctx context.Context, cfg harness.Config, stdout io.Writer, do func(context.Context, *harness.Errand) error) error {
	// An earlier run's would be taken for this one's.
	if err := os.Remove(s.ReportPath()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	ranErr := s.withErrand(ctx, cfg, do)
	r, err := ginkgoreport.Read(s.ReportPath(), s.logPath())
	if err != nil {
		return cmp.Or(ranErr, err)
	}
	// Also of a run that was interrupted.
	sum := r.Summarize(ginkgoreport.Scope{Focus: s.Focus, Skip: s.Skip, OutOfScope: s.OutOfScope, All: s.All, File: s.File})
	sum.Print(stdout)
	return errors.Join(ranErr, sum.Err())
}

// withErrand runs do against an errand. What do says counts most.
func (s *Suite) withErrand(ctx context.Context, cfg harness.Config, do func(context.Context, *harness.Errand) error) error {
	log, err := os.Create(filepath.Join(s.Report, "errand.log"))
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
	err = do(ctx, e)
	// Also after an interrupt.
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancel()
	_, stopErr := e.Stop(ending)
	return errors.Join(err, stopErr, e.TakeOff(ctx))
}

// Exec runs the suite's program, one of Tools. Tests that fail are no error here:
// the report tells of them.
func (s *Suite) Exec(ctx context.Context, program string, args ...string) error {
	log, err := os.Create(s.logPath())
	if err != nil {
		return err
	}
	defer log.Close()
	fmt.Fprintf(s.Stderr, "running upstream's tests; what they print is in %s\n", log.Name())
	stop := ginkgoreport.Follow(log.Name(), s.Stderr)
	defer stop()
	cmd := exec.CommandContext(ctx, filepath.Join(s.Tools, program), args...)
	cmd.Stdout, cmd.Stderr = log, log
	// A group of its own, so that the interrupt goes to all of its processes, once.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = interruptGrace
	err = cmd.Run()
	if ctx.Err() != nil {
		return errors.Join(ctx.Err(), s.killGroup(cmd))
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return fmt.Errorf("run %s: %w", program, err)
	}
	return nil
}

// killGroup kills what is left of a command's processes.
func (s *Suite) killGroup(cmd *exec.Cmd) error {
	if cmd.Process == nil {
		return nil // it never began
	}
	if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}

// Skips are the arguments that leave out what is out of scope, by the flag for that.
func (s *Suite) Skips(flag string) []string {
	if s.All {
		return nil
	}
	return s.OutOfScope.Args(flag)
}
