package volumes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"
)

// Teardown takes all volumes of a pod away: it unmounts and removes what Setup
// and Mounts made, whether this process made it or one before, and forgets the
// pod's tokens. The pod's containers must be gone. It is idempotent; after an
// error it can be called again. What else stands in the pod's directory stays.
func (m *Manager) Teardown(_ context.Context, uid types.UID) error {
	return m.teardown(uid, func(podDir string) error {
		for _, name := range []string{subPathsDir, volumesDir} {
			if err := removeTree(filepath.Join(podDir, name)); err != nil {
				return err
			}
		}
		err := os.Remove(podDir)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTEMPTY) {
			return nil
		}
		return err
	})
}

// Remove does what Teardown does and removes the pod's whole directory.
func (m *Manager) Remove(_ context.Context, uid types.UID) error {
	return m.teardown(uid, removeTree)
}

func (m *Manager) teardown(uid types.UID, clear func(podDir string) error) error {
	if err := checkUID(uid); err != nil {
		return err
	}
	m.mu.Lock()
	st := m.pods[uid]
	m.mu.Unlock()
	if st != nil {
		st.work.Lock()
		defer st.work.Unlock()
		m.forget(uid, st)
	}
	err := clear(m.podDir(uid))
	if m.cfg.MemoryDir != "" {
		err = errors.Join(err, removeTree(filepath.Join(m.cfg.MemoryDir, string(uid))))
	}
	if err != nil {
		return fmt.Errorf("remove volumes of pod %s: %w", uid, err)
	}
	return nil
}

func (m *Manager) forget(uid types.UID, st *podState) {
	if st.timer != nil {
		st.timer.Stop()
	}
	st.gone = true
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.pods[uid] == st {
		delete(m.pods, uid)
		m.dropObjects(uid, st)
	}
}

// removeTree removes a directory and all in it, or a file. It follows no link
// and never removes what lies on another mount: it detaches mounts it meets. No
// error if there is nothing.
func removeTree(path string) error {
	parent, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "open", Path: filepath.Dir(path), Err: err}
	}
	defer func() { _ = unix.Close(parent) }() // O_PATH: nothing was written
	return removeAt(parent, filepath.Base(path), path)
}

// removeAt removes the entry name of the directory open as parent; path is for
// messages.
//
// unlinkat tells apart, without a race, what has to be told apart: EBUSY is a
// mount point, ENOTEMPTY a directory of this very mount.
func removeAt(parent int, name, path string) error {
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
		case errors.Is(err, unix.ENOTEMPTY), errors.Is(err, unix.EEXIST):
			err = removeEntries(parent, name, path)
		}
		if err != nil {
			return &fs.PathError{Op: "remove", Path: path, Err: err}
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

func removeEntries(parent int, name, path string) error {
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
	for _, entry := range names {
		if err := removeAt(fd, entry, filepath.Join(path, entry)); err != nil {
			return err
		}
	}
	return nil
}
