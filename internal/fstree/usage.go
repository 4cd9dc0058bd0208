package fstree

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"syscall"
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
	type inode struct{ dev, ino uint64 }
	var total Usage
	var dev uint64
	seen := map[inode]bool{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		var info fs.FileInfo
		if err == nil {
			info, err = entry.Info()
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return nil
		}
		if path == dir {
			dev = uint64(st.Dev)
		} else if uint64(st.Dev) != dev {
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if st.Nlink > 1 && !info.IsDir() {
			key := inode{uint64(st.Dev), st.Ino}
			if seen[key] {
				return nil
			}
			seen[key] = true
		}
		const blockSize = 512 // of st_blocks, whatever the file system's is
		total.Add(Usage{Bytes: st.Blocks * blockSize, Inodes: 1})
		return nil
	})
	return total, err
}
