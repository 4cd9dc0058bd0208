package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

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
	exe, forget := protected(self)
	defer forget()
	argv := []string{os.Args[0], "--dir", dir, "--cgroup", cgroup}
	pid, err := syscall.ForkExec(exe, argv, &syscall.ProcAttr{
		Dir:   "/",
		Env:   append(os.Environ(), fmt.Sprintf("%s=%d", readyEnv, readyFD), openFilesEnv+"="+inheritedOpenFiles()),
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

const self = "/proc/self/exe"

// protected is a way to execute a file by which the process executing it can't be led to write to it. A container whose command
// is /proc/self/exe gets what executes it, errand-shim, and may open that for as long as it likes (CVE-2019-5736): on a read-only mount
// that is of no use. Where the kernel can't do it (before Linux 5.12) no container is executed by errand-shim itself, and the
// path is the file's own.
func protected(path string) (exe string, forget func()) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return path, func() {}
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY, Propagation: unix.MS_PRIVATE}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		unix.Close(fd)
		return path, func() {}
	}
	return fmt.Sprintf("/proc/self/fd/%d", fd), func() { unix.Close(fd) }
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
