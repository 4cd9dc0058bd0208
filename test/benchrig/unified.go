package benchrig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// unified is where a hybrid of cgroups v1 and v2 has the latter.
const unified = "/sys/fs/cgroup/unified"

// Hybrid says whether this machine has such a hybrid of cgroups as crun refuses:
// one whose version 2 has controllers.
func Hybrid() bool {
	controllers, err := os.ReadFile(unified + "/cgroup.controllers")
	return err == nil && len(bytes.TrimSpace(controllers)) > 0
}

// WithoutUnified runs this program once more, with these arguments, in a mount
// namespace of its own from which that program is to take cgroups v2, with
// HideUnified. All that it starts is in there too.
func WithoutUnified(ctx context.Context, out io.Writer, args ...string) error {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // it takes its errand off the host
	cmd.WaitDelay = endTimeout
	return cmd.Run()
}

// HideUnified takes cgroups v2 away from the mount namespace, which must be this
// program's own.
func HideUnified() error {
	own, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return err
	}
	if parents, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", os.Getppid())); err != nil || own == parents {
		return errors.Join(errors.New("this mount namespace is the parent process's too"), err)
	}
	if err := unix.Unmount(unified, unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("unmount %s: %w", unified, err)
	}
	return nil
}
