// Package fstree handles directory trees that containers have written to: full
// of links that lead elsewhere, and perhaps with file systems mounted in them.
package fstree

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// maxOpen is how many directories are open at once. A container can make a tree of
// any depth in no time, and errand has other uses for its descriptors.
const maxOpen = 100

// Remove removes a directory and all in it, or a file. It follows no link
// and never removes what lies on another mount: it detaches mounts it meets. No
// error if there is nothing.
func Remove(path string) error {
	parent, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "open", Path: filepath.Dir(path), Err: err}
	}
	defer func() { _ = unix.Close(parent) }() // O_PATH: nothing was written
	return (&removal{}).entry(parent, filepath.Base(path), path)
}

// removal is the removal of one tree.
type removal struct {
	open  []int // the directories on the way to where it is, the tree's root first
	moved int   // directories that were moved up to the root
}

// entry removes the entry name of the directory open as parent; path is for
// messages.
//
// unlinkat tells apart, without a race, what has to be told apart: EBUSY is a
// mount point, ENOTEMPTY a directory of this very mount.
func (r *removal) entry(parent int, name, path string) error {
	for {
		err := unix.Unlinkat(parent, name, 0)
		if errors.Is(err, unix.EISDIR) {
			err = unix.Unlinkat(parent, name, unix.AT_REMOVEDIR)
		}
		switch {
		case err == nil, errors.Is(err, unix.ENOENT):
			return nil
		case errors.Is(err, unix.EBUSY):
			err = detachAt(parent, name)
		case !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST):
		case len(r.open) == maxOpen:
			return r.moveUp(parent, name, path)
		default:
			err = r.entries(parent, name, path)
		}
		if err != nil {
			return &fs.PathError{Op: "remove", Path: path, Err: err}
		}
	}
}

// moveUp moves a directory from the depth to the tree's root, which isn't empty
// therefore once it has been gone through, and is then gone through again.
func (r *removal) moveUp(parent int, name, path string) error {
	for {
		r.moved++
		err := unix.Renameat2(parent, name, r.open[0], fmt.Sprint("removed-", r.moved), unix.RENAME_NOREPLACE)
		switch {
		case err == nil, errors.Is(err, unix.ENOENT):
			return nil
		case !errors.Is(err, unix.EEXIST):
			return &fs.PathError{Op: "move up and remove", Path: path, Err: err}
		}
	}
}

// detachAt lazily unmounts the topmost mount on an entry.
func detachAt(parent int, name string) error {
	target := fmt.Sprintf("/proc/self/fd/%d/%s", parent, name)
	if err := unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("unmount: %w", err)
	}
	return nil
}

// entries removes what is in the directory that is the entry name of parent.
func (r *removal) entries(parent int, name, path string) error {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(parent, name, flags, 0)
	if errors.Is(err, unix.EACCES) {
		// Without root, a directory that a container closed to its owner.
		if err = unix.Fchmodat(parent, name, 0o700, 0); err == nil {
			fd, err = unix.Openat(parent, name, flags, 0)
		}
	}
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(fd), path)
	defer func() { _ = dir.Close() }() // opened for reading only
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	r.open = append(r.open, fd)
	defer func() { r.open = r.open[:len(r.open)-1] }()
	for _, entry := range names {
		if err := r.entry(fd, entry, filepath.Join(path, entry)); err != nil {
			return err
		}
	}
	return nil
}
