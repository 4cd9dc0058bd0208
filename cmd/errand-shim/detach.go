package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"errand.dev/errand/internal/oci/shim"
)

// readyEnv names the descriptor on which a detached shim says that it serves, or how it failed.
const readyEnv = "ERRAND_SHIM_READY_FD"

const (
	readyFD  = 3
	readyMsg = "ready\n"
)

// background starts the shim as a process of its own session, with a file in dir as its stderr, and waits until it serves.
func background(dir, cgroup string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	logFile, err := os.OpenFile(filepath.Join(dir, "shim.log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	argv := []string{os.Args[0], "--dir", dir, "--cgroup", cgroup}
	pid, err := syscall.ForkExec("/proc/self/exe", argv, &syscall.ProcAttr{
		Dir:   "/",
		Env:   append(os.Environ(), fmt.Sprintf("%s=%d", readyEnv, readyFD)),
		Files: []uintptr{null.Fd(), logFile.Fd(), logFile.Fd(), w.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	w.Close()
	if err != nil {
		return fmt.Errorf("start in the background: %w", err)
	}
	said, err := io.ReadAll(r)
	if err == nil && string(said) == readyMsg {
		return nil
	}
	_, _ = syscall.Wait4(pid, nil, 0, nil) // it has failed: don't leave before it has
	switch {
	case err != nil:
		return err
	case strings.Contains(string(said), shim.ErrRunning.Error()):
		return shim.ErrRunning
	case len(said) == 0:
		said = []byte("it died; see " + logFile.Name())
	}
	return errors.New(strings.TrimSpace(string(said)))
}

// tellReady tells the process that waits in background.
func tellReady() { tell(readyMsg) }

func tell(message string) {
	if os.Getenv(readyEnv) == "" {
		return
	}
	os.Unsetenv(readyEnv)
	f := os.NewFile(readyFD, "ready")
	_, _ = f.WriteString(message)
	f.Close()
}
