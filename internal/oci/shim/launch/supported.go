package launch

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrDumpable says that a setting of the kernel's keeps containers from being launched.
var ErrDumpable = errors.New("fs.suid_dumpable is 1, which lets others of a container's user look into its parent's memory")

// Supported returns an error that says what keeps this process, or this machine, from launching containers, nil if nothing
// does: one that wraps ENOSYS where the kernel is too old, EPERM where this process may not try, or ErrDumpable.
func Supported() error {
	if !portedHere {
		return errors.New("errand's launcher isn't written for this processor")
	}
	// With an invalid descriptor a call that exists says so, and one that doesn't, or that is forbidden, says that.
	err := unix.MountSetattr(-1, "x", 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	if err := answered("mount_setattr", "5.12", err, unix.EBADF); err != nil {
		return err
	}
	_, err = unix.Openat2(-1, "x", &unix.OpenHow{})
	if err := answered("openat2", "5.6", err, unix.EBADF); err != nil {
		return err
	}
	_, _, errno := unix.RawSyscall(unix.SYS_CLONE3, 0, 0, 0)
	if err := answered("clone3", "5.3", errno, unix.EINVAL); err != nil {
		return err
	}
	data, err := os.ReadFile("/proc/sys/fs/suid_dumpable")
	switch {
	case err != nil:
		return fmt.Errorf("who may look into its parent's memory can't be told: %w", err)
	case strings.TrimSpace(string(data)) == "1":
		return ErrDumpable
	}
	return nil
}

// answered says what it means that a system call, which came with a version of Linux, was answered by err rather than by
// the error of its existence.
func answered(call, since string, err, existence error) error {
	switch {
	case errors.Is(err, existence):
		return nil
	case errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("the kernel lacks %s, which came with Linux %s (%w)", call, since, err)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("this process may not call %s (%w)", call, err)
	default:
		return fmt.Errorf("the call %s, of Linux %s, fails: %w", call, since, err)
	}
}

// lastCapability is the highest capability that the kernel knows.
func lastCapability() int {
	data, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	if n, perr := strconv.Atoi(strings.TrimSpace(string(data))); err == nil && perr == nil {
		return n
	}
	return unix.CAP_LAST_CAP
}
