package oci

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// openNull opens /dev/null for a process in a container. OCI runtimes hand it on as it is, and who has a file open may change its
// mode if he owns it, as a container's root owns the host's; so it is opened on a read-only mount, where nothing of a
// device is changed by what can be done with it there but reading and writing. Before Linux 5.12 it is the host's plain one.
func openNull() (*os.File, error) {
	mount, err := unix.OpenTree(unix.AT_FDCWD, os.DevNull, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return os.OpenFile(os.DevNull, os.O_RDWR, 0)
	}
	defer unix.Close(mount)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY, Propagation: unix.MS_PRIVATE}
	if err := unix.MountSetattr(mount, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return os.OpenFile(os.DevNull, os.O_RDWR, 0)
	}
	return os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", mount), os.O_RDWR, 0)
}
