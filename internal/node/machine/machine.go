// Package machine reads what the machine has and uses as a whole, from /proc and
// from the outermost cgroup that can be seen: the machine's own, or that of the
// container or slice which errand and all its pods run in, whose limits the
// Node's capacity comes from.
package machine

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Linux reads below a root directory, "/" but for tests. Its methods may be called
// concurrently.
type Linux string

// Memory is in bytes. WorkingSet is what is used without inactive pages of files,
// which the kernel drops first.
type Memory struct{ Used, WorkingSet, SwapUsed int64 }

// Memory reads how much is in use. A machine's own cgroup of version 2 doesn't
// count it; there /proc/meminfo does.
func (l Linux) Memory() (Memory, error) {
	info, err := l.Meminfo()
	if err != nil {
		return Memory{}, err
	}
	used, inactive, err := l.counted()
	if errors.Is(err, fs.ErrNotExist) {
		used, inactive, err = info["MemTotal"]-info["MemFree"], info["Inactive(file)"], nil
	}
	return Memory{Used: used, WorkingSet: max(0, used-inactive), SwapUsed: info["SwapTotal"] - info["SwapFree"]}, err
}

// counted is the memory used by the cgroup, and the part of it that is inactive
// pages of files.
func (l Linux) counted() (used, inactive int64, err error) {
	for _, v := range []struct{ usage, stat, inactive string }{
		{"memory.current", "memory.stat", "inactive_file"},
		{"memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"},
	} {
		used, err = l.number(filepath.Join("sys/fs/cgroup", v.usage))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, 0, err
		}
		stat, err := l.table(filepath.Join("sys/fs/cgroup", v.stat))
		return used, stat[v.inactive], err
	}
	return 0, 0, err
}

// Meminfo is /proc/meminfo in bytes, by name. MemTotal is among them.
func (l Linux) Meminfo() (map[string]int64, error) {
	const path = "proc/meminfo"
	lines, err := l.table(path)
	if err != nil {
		return nil, err
	}
	info := make(map[string]int64, len(lines))
	for name, kB := range lines {
		info[strings.TrimSuffix(name, ":")] = kB << 10
	}
	if info["MemTotal"] == 0 {
		return nil, fmt.Errorf("%s has no MemTotal", filepath.Join(string(l), path))
	}
	return info, nil
}

// CPU is the CPU time of all processes since some time before, in nanoseconds.
func (l Linux) CPU() (int64, error) {
	stat, err := l.table("sys/fs/cgroup/cpu.stat") // version 2
	if err == nil {
		return stat["usage_usec"] * 1000, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	return l.number("sys/fs/cgroup/cpuacct/cpuacct.usage")
}

// Tasks is how many processes and threads there are, and how many there may be.
func (l Linux) Tasks() (now, most int64, err error) {
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
	path := filepath.Join(string(l), "proc/loadavg")
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, 0, err
	}
	fields := strings.Fields(string(data))
	if len(fields) < 4 {
		return 0, 0, fmt.Errorf("%s reads %q", path, data)
	}
	_, total, _ := strings.Cut(fields[3], "/")
	if now, err = strconv.ParseInt(total, 10, 64); err != nil {
		return 0, 0, fmt.Errorf("%s: %w", path, err)
	}
	return now, most, nil
}

func (l Linux) number(path string) (int64, error) {
	path = filepath.Join(string(l), path)
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return n, nil
}

// table reads lines of a name and a number, and perhaps a unit.
func (l Linux) table(path string) (map[string]int64, error) {
	path = filepath.Join(string(l), path)
	data, err := os.ReadFile(path)
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
			return nil, fmt.Errorf("%s: %s: %w", path, fields[0], err)
		}
		values[fields[0]] = n
	}
	return values, nil
}
