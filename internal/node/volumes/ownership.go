package volumes

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"

	"errand.dev/errand/internal/fstree"
)

// fsGroup is the pod's securityContext.fsGroup, nil if unset.
func fsGroup(pod *v1.Pod) *int64 {
	if pod.Spec.SecurityContext == nil {
		return nil
	}
	return pod.Spec.SecurityContext.FSGroup
}

// setGroup hands a volume to the group as the kubelet does: everything in it is
// chowned to the group and made accessible to it, and directories become setgid
// so that what is created in them belongs to the group too. It does nothing for
// a nil group. Links are chowned, never followed.
//
// Other pods may be at work in the volume. What they remove meanwhile is none of
// the pod's, and no error; and since they may replace anything by a link to the
// host's files at any moment, everything is reached by the open directory that it
// lies in, and changed by the file that was opened.
func setGroup(root string, group *int64, readOnly bool) error {
	if group == nil {
		return nil
	}
	h := handover{int(*group), readOnly}
	if err := h.entry(unix.AT_FDCWD, root); err != nil {
		return &fs.PathError{Op: "set the group of", Path: root, Err: err}
	}
	err := fstree.Walk(root, func(dir int, name string, st *unix.Stat_t) (enter bool, err error) {
		err = h.entry(dir, name)
		if errors.Is(err, unix.ENOENT) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("set the group of %q: %w", name, err)
		}
		return st.Mode&unix.S_IFMT == unix.S_IFDIR, nil
	})
	if errors.Is(err, unix.ENOTDIR) { // a file as a volume
		return nil
	}
	return err
}

// handover is what setGroup gives to whom.
type handover struct {
	group    int
	readOnly bool
}

// entry hands over what lies in an open directory, by a descriptor of its own: what
// bears the name afterwards may be something else.
func (h handover) entry(dir int, name string) error {
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }() // O_PATH: nothing was written
	same := fmt.Sprintf("/proc/self/fd/%d", fd)
	info, err := os.Stat(same) // before the chown, which takes setuid bits away
	if err != nil {
		return err
	}
	if err := unix.Fchownat(fd, "", -1, h.group, unix.AT_EMPTY_PATH); err != nil {
		return err
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		return nil
	}
	return os.Chmod(same, groupMode(info.Mode(), h.readOnly))
}

// rootFits tells whether a volume's root is as setGroup leaves it
// (fsGroupChangePolicy OnRootMismatch).
func rootFits(root string, group int64) (bool, error) {
	info, err := os.Stat(root)
	if err != nil {
		return false, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	mode := info.Mode() & (fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky)
	return ok && int64(st.Gid) == group && groupMode(info.Mode(), false) == mode, nil
}

// groupMode adds what the group needs to a file's mode.
func groupMode(mode fs.FileMode, readOnly bool) fs.FileMode {
	add := fs.FileMode(0o660)
	if readOnly {
		add = 0o440
	}
	if mode.IsDir() {
		add |= fs.ModeSetgid | 0o110
	}
	return (mode & (fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky)) | add
}

// makeOpenDir creates a directory with exactly the given mode, whatever the
// umask, and group. It appears whole or, after a crash, not at all; one that is
// already there is left alone.
func makeOpenDir(path string, mode fs.FileMode, group *int64) error {
	if info, err := os.Lstat(path); err == nil {
		if !info.IsDir() {
			return fmt.Errorf("%s exists and is not a directory", path)
		}
		return nil
	}
	tmp, err := os.MkdirTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return err
	}
	err = errors.Join(os.Chmod(tmp, mode), setGroup(tmp, group, false))
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return nil
}
