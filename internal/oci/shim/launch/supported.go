package launch

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Supported returns an error that says what keeps this machine from launching containers, nil if it can.
func Supported() error {
	if !portedHere {
		return errors.New("not written for this processor")
	}
	// With an invalid descriptor a call that exists says so, and one that doesn't, or that is forbidden, says that.
	if err := unix.MountSetattr(-1, "x", 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); !errors.Is(err, unix.EBADF) {
		return fmt.Errorf("mount_setattr (Linux 5.12): %w", err)
	}
	if _, err := unix.Openat2(-1, "x", &unix.OpenHow{}); !errors.Is(err, unix.EBADF) {
		return fmt.Errorf("openat2 (Linux 5.6): %w", err)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_CLONE3, 0, 0, 0); errno != unix.EINVAL {
		return fmt.Errorf("clone3 (Linux 5.3): %w", errno)
	}
	// Were a changed process dumpable, others of its user could look into the shim's memory.
	if data, err := os.ReadFile("/proc/sys/fs/suid_dumpable"); err != nil || strings.TrimSpace(string(data)) == "1" {
		return fmt.Errorf("fs.suid_dumpable is %q, and must be 0 or 2 (%w)", strings.TrimSpace(string(data)), err)
	}
	return nil
}

// lastCapability is the highest capability that the kernel knows.
func lastCapability() int {
	data, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	if n, perr := strconv.Atoi(strings.TrimSpace(string(data))); err == nil && perr == nil {
		return n
	}
	return unix.CAP_LAST_CAP
}
