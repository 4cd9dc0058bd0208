package eviction

import (
	"io/fs"

	"golang.org/x/sys/unix"

	"errand.dev/errand/internal/node/machine"
)

// Host reads the machine. It isn't called concurrently.
type Host interface {
	Read() (Reading, error)
}

// Reading is how the machine stands.
type Reading struct {
	Memory          Memory
	NodeFS, ImageFS Filesystem
	// Tasks is how many processes and threads there are, TasksMax how many there may be.
	Tasks, TasksMax int64
}

// Memory in bytes. WorkingSet is what is used without what the kernel would
// drop first.
type Memory struct{ Capacity, WorkingSet int64 }

// Filesystem is one in bytes and inodes; no inodes at all means that it doesn't
// count them.
type Filesystem struct {
	Capacity, Available int64
	Inodes, InodesFree  int64
	device              uint64
}

// LinuxHost reads the machine that we run on. capacity is its memory in bytes;
// pods (volumes, logs) are on the file system of podsDir, images and what
// containers write on that of what imagesDir returns.
func LinuxHost(capacity int64, podsDir string, imagesDir func() string) Host {
	return &linux{machine: "/", capacity: capacity, podsDir: podsDir, imagesDir: imagesDir}
}

type linux struct {
	machine   machine.Linux
	capacity  int64
	podsDir   string
	imagesDir func() string
}

// Read implements Host.
func (l *linux) Read() (Reading, error) {
	memory, err := l.machine.Memory()
	if err != nil {
		return Reading{}, err
	}
	r := Reading{Memory: Memory{Capacity: l.capacity, WorkingSet: min(memory.WorkingSet, l.capacity)}}
	if r.NodeFS, err = statfs(l.podsDir); err != nil {
		return Reading{}, err
	}
	if r.ImageFS, err = statfs(l.imagesDir()); err != nil {
		return Reading{}, err
	}
	if r.Tasks, r.TasksMax, err = l.machine.Tasks(); err != nil {
		return Reading{}, err
	}
	return r, nil
}

func statfs(path string) (Filesystem, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return Filesystem{}, &fs.PathError{Op: "statfs", Path: path, Err: err}
	}
	var file unix.Stat_t
	if err := unix.Stat(path, &file); err != nil {
		return Filesystem{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return Filesystem{
		Capacity: int64(st.Blocks) * st.Bsize, Available: int64(st.Bavail) * st.Bsize,
		Inodes: int64(st.Files), InodesFree: int64(st.Ffree), device: uint64(file.Dev),
	}, nil
}
