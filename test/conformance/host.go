package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// Some of upstream's tests act on the node: by way of its first process they enter its mount namespace, and mount things there. So the
// runner makes a host of its own within this one, PID and mount namespaces, in which it, errand and all containers live. On most
// machines the tests could do without. But then they would mount on the machine itself; and on some nobody may look into the first process,
// and mounts don't propagate.

// stageEnv tells a process of the runner's which one it is.
const stageEnv = "ERRAND_CONFORMANCE_STAGE"

const (
	stageInit = "init" // the first process of the host of its own
	stageRun  = "run"  // its child, which runs the tests
)

// inOwnHost runs this program again in namespaces of its own, and returns its exit code.
func inOwnHost() (int, error) {
	if _, _, err := parse(os.Args[1:], os.Stderr); err != nil {
		return 0, err // before anything is made
	}
	cmd := again(stageInit)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS}
	// An interrupt goes to the whole group. Who runs the tests ends them; this process waits for it.
	signal.Ignore(syscall.SIGINT)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("make namespaces: %w", err)
	}
	context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) }) // it may have ended
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	return cmd.ProcessState.ExitCode(), nil
}

// again is this program with the same arguments, as another stage.
func again(stage string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), stageEnv+"="+stage)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd
}

// initOwnHost is the first process: it mounts what the host of its own needs, starts the run, and reaps whom nobody waits for until that
// has ended. What is left then ends with it.
func initOwnHost() (int, error) {
	// Shared, as systemd has it, but with nothing outside: mounts that tests make stay in here.
	for _, flags := range []uintptr{unix.MS_REC | unix.MS_PRIVATE, unix.MS_REC | unix.MS_SHARED} {
		if err := unix.Mount("", "/", "", flags, ""); err != nil {
			return 0, fmt.Errorf("make mounts shared: %w", err)
		}
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return 0, fmt.Errorf("mount /proc: %w", err)
	}
	signal.Ignore(syscall.SIGINT)
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, syscall.SIGTERM)
	run := again(stageRun)
	if err := run.Start(); err != nil {
		return 0, err
	}
	go func() {
		for s := range terminated {
			_ = run.Process.Signal(s) // it may have ended
		}
	}()
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, fmt.Errorf("wait for the tests: %w", err)
		case pid == run.Process.Pid && status.Exited():
			return status.ExitStatus(), nil
		case pid == run.Process.Pid:
			return 128 + int(status.Signal()), nil
		}
	}
}
