// Package memoryfs mounts file systems that are in memory, for what is secret or
// ends with the boot.
package memoryfs

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"
)

// Kind is what a directory lies on.
type Kind struct {
	// Memory: a tmpfs or ramfs.
	Memory bool
	// NoExec: no program may be run from it.
	NoExec bool
}

// Look tells what the directory lies on.
func Look(dir string) (Kind, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return Kind{}, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return Kind{Memory: st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC, NoExec: st.Flags&unix.ST_NOEXEC != 0}, nil
}

// Mount mounts a tmpfs on the directory, for its owner alone, that is never
// swapped out, if the kernel knows how (6.4), else one that may be.
func Mount(dir string) error {
	const flags = unix.MS_NOSUID | unix.MS_NODEV
	err := unix.Mount("tmpfs", dir, "tmpfs", flags, "mode=0700,noswap")
	if errors.Is(err, unix.EINVAL) {
		err = unix.Mount("tmpfs", dir, "tmpfs", flags, "mode=0700")
	}
	if err != nil {
		return fmt.Errorf("mount a tmpfs on %s: %w", dir, err)
	}
	return nil
}
