package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"errand.dev/errand/test/harness"
)

// A Process is a child.
type Process struct {
	Name string
	// Said is what it prints.
	Said *harness.Transcript

	cmd    *exec.Cmd
	notify *harness.Notify
	done   chan struct{} // closed once it has ended
}

// start runs a program in a folder.
func start(dir, path string, args ...string) (*Process, error) {
	notify, err := harness.ListenNotify()
	if err != nil {
		return nil, err
	}
	p := &Process{Name: filepath.Base(path), Said: harness.NewTranscript(), cmd: exec.Command(path, args...), notify: notify, done: make(chan struct{})}
	p.cmd.Dir = dir
	p.cmd.Env = append(os.Environ(), notify.Env())
	p.cmd.Stdout, p.cmd.Stderr = p.Said, p.Said
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // a test that panics leaves nothing
	if err := p.cmd.Start(); err != nil {
		notify.Close()
		return nil, fmt.Errorf("start %s: %w", p.Name, err)
	}
	go func() {
		_ = p.cmd.Wait() // Code says it
		notify.Close()
		close(p.done)
	}()
	return p, nil
}

// awaitReady returns once the process has said that it is ready, as to a service manager.
func (p *Process) awaitReady(ctx context.Context) error {
	if err := p.notify.Await(ctx); err != nil {
		return fmt.Errorf("%s didn't become ready: %w; it said:\n%s", p.Name, err, p.Said)
	}
	return nil
}

// PID is the process's.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Signal sends one; to a process that has ended, it is nothing.
func (p *Process) Signal(s syscall.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("%s to %s: %w", s, p.Name, err)
	}
	return nil
}

// Ended waits for its end and returns its exit code; -1 means by a signal.
func (p *Process) Ended(ctx context.Context) (int, error) {
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode(), nil
	case <-ctx.Done():
		return 0, fmt.Errorf("%s didn't end: %w; it said:\n%s", p.Name, ctx.Err(), p.Said)
	}
}

// Stop ends it, with SIGTERM and, once ctx has ended, with SIGKILL.
func (p *Process) Stop(ctx context.Context) error {
	err := errors.Join(p.Signal(syscall.SIGCONT), p.Signal(syscall.SIGTERM))
	if _, late := p.Ended(ctx); late != nil {
		err = errors.Join(err, late, p.Kill())
	}
	return err
}

// Kill ends it as a crash would, and waits for that.
func (p *Process) Kill() error {
	if err := p.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-p.done
	return nil
}
