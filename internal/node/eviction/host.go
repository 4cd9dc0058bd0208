package eviction

import (
	"bufio"
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
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
	return &linux{root: "/", capacity: capacity, podsDir: podsDir, imagesDir: imagesDir}
}

// linux reads /proc and /sys below root.
type linux struct {
	root      string
	capacity  int64
	podsDir   string
	imagesDir func() string
}

// Read implements Host.
func (l *linux) Read() (Reading, error) {
	used, err := l.workingSet()
	if err != nil {
		return Reading{}, err
	}
	r := Reading{Memory: Memory{Capacity: l.capacity, WorkingSet: min(used, l.capacity)}}
	if r.NodeFS, err = statfs(l.podsDir); err != nil {
		return Reading{}, err
	}
	if r.ImageFS, err = statfs(l.imagesDir()); err != nil {
		return Reading{}, err
	}
	if r.Tasks, r.TasksMax, err = l.tasks(); err != nil {
		return Reading{}, err
	}
	return r, nil
}

// workingSet is the memory in use without inactive pages of files, which the
// kernel drops first, of the outermost cgroup that we see: the machine, or the
// container or slice that errand runs in. A machine's own cgroup of version 2
// doesn't count what is used; there /proc/meminfo does.
func (l *linux) workingSet() (int64, error) {
	for _, c := range []struct{ usage, stat, inactive string }{
		{"sys/fs/cgroup/memory/memory.usage_in_bytes", "sys/fs/cgroup/memory/memory.stat", "total_inactive_file"},
		{"sys/fs/cgroup/memory.current", "sys/fs/cgroup/memory.stat", "inactive_file"},
	} {
		usage, err := l.number(c.usage)
		if err != nil {
			continue // not this version, or not in a cgroup that counts
		}
		stat, err := l.table(c.stat, 1)
		if err != nil {
			return 0, err
		}
		return max(0, usage-stat[c.inactive]), nil
	}
	info, err := l.table("proc/meminfo", 1024)
	if err != nil {
		return 0, err
	}
	if info["MemTotal:"] == 0 {
		return 0, fmt.Errorf("%s has no MemTotal", filepath.Join(l.root, "proc/meminfo"))
	}
	return max(0, info["MemTotal:"]-info["MemFree:"]-info["Inactive(file):"]), nil
}

func (l *linux) tasks() (now, most int64, err error) {
	for _, path := range []string{"proc/sys/kernel/pid_max", "proc/sys/kernel/threads-max"} {
		n, err := l.number(path)
		if err != nil {
			return 0, 0, err
		}
		if most == 0 || n < most {
			most = n
		}
	}
	// 0.36 0.62 1.13 2/93 15426: 93 tasks, 2 of them running.
	const path = "proc/loadavg"
	data, err := os.ReadFile(filepath.Join(l.root, path))
	if err != nil {
		return 0, 0, err
	}
	fields := strings.Fields(string(data))
	if len(fields) < 4 {
		return 0, 0, fmt.Errorf("/%s reads %q", path, data)
	}
	_, total, _ := strings.Cut(fields[3], "/")
	if now, err = strconv.ParseInt(total, 10, 64); err != nil {
		return 0, 0, fmt.Errorf("/%s: %w", path, err)
	}
	return now, most, nil
}

func (l *linux) number(path string) (int64, error) {
	data, err := os.ReadFile(filepath.Join(l.root, path))
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("/%s: %w", path, err)
	}
	return n, nil
}

// table reads lines of "name number", in units of so many bytes.
func (l *linux) table(path string, unit int64) (map[string]int64, error) {
	data, err := os.ReadFile(filepath.Join(l.root, path))
	if err != nil {
		return nil, err
	}
	values := map[string]int64{}
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 {
			continue
		}
		n, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("/%s: %s: %w", path, fields[0], err)
		}
		values[fields[0]] = n * unit
	}
	return values, nil
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
