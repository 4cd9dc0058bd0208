package volumes

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	v1 "k8s.io/api/core/v1"
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
func setGroup(root string, group *int64, readOnly bool) error {
	if group == nil {
		return nil
	}
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := os.Lchown(path, -1, int(*group)); err != nil {
			return err
		}
		if d.Type()&fs.ModeSymlink != 0 {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		return os.Chmod(path, groupMode(info.Mode(), readOnly))
	})
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
