package fstree

import (
	"context"
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"
)

// Usage is what a tree takes of its file system.
type Usage struct {
	// Bytes allocated.
	Bytes int64
	// Inodes in use.
	Inodes int64
}

// Add adds another usage.
func (u *Usage) Add(o Usage) {
	u.Bytes += o.Bytes
	u.Inodes += o.Inodes
}

// Measure adds up what the files below dir take, hard links once, without what
// is mounted there. Containers write and go while it walks: what vanishes under
// its feet doesn't count, and neither does a dir that isn't there.
func Measure(ctx context.Context, dir string) (Usage, error) {
	var root unix.Stat_t
	err := unix.Lstat(dir, &root)
	if errors.Is(err, unix.ENOENT) {
		return Usage{}, ctx.Err()
	}
	if err != nil {
		return Usage{}, &fs.PathError{Op: "lstat", Path: dir, Err: err}
	}
	total := usageOf(&root)
	if root.Mode&unix.S_IFMT != unix.S_IFDIR {
		return total, ctx.Err()
	}
	seen := map[uint64]bool{}
	err = Walk(dir, func(_ int, _ string, st *unix.Stat_t) (enter bool, err error) {
		isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
		switch {
		case ctx.Err() != nil:
			return false, ctx.Err()
		case st.Dev != root.Dev, !isDir && seen[st.Ino]:
			return false, nil
		case !isDir && st.Nlink > 1:
			seen[st.Ino] = true
		}
		total.Add(usageOf(st))
		return isDir, nil
	})
	if errors.Is(err, fs.ErrNotExist) { // dir itself, just now
		err = nil
	}
	return total, errors.Join(err, ctx.Err())
}

func usageOf(st *unix.Stat_t) Usage {
	const blockSize = 512 // of st_blocks, whatever the file system's is
	return Usage{Bytes: st.Blocks * blockSize, Inodes: 1}
}
