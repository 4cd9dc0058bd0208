package podserver

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
	"time"
)

// Machine tells what the whole node uses. It may be called concurrently.
type Machine interface {
	Usage() (MachineUsage, error)
}

// MachineUsage is a node's usage at one time.
type MachineUsage struct {
	At time.Time
	// CPUNanos is CPU time of all processes since some time before.
	CPUNanos uint64
	// Used and WorkingSet are memory in bytes; WorkingSet is without what the
	// kernel would drop first.
	Used, WorkingSet uint64
	// SwapUsed is in bytes.
	SwapUsed uint64
}

// LinuxMachine is the machine that this process runs on: as the kubelet takes
// it, the outermost cgroup that can be seen. In a container or a VM slice that
// is what the limits hold for that the Node's capacity comes from.
func LinuxMachine() Machine { return linuxMachine{"/"} }

type linuxMachine struct{ root string }

// Usage implements Machine.
func (m linuxMachine) Usage() (MachineUsage, error) {
	u := MachineUsage{At: time.Now()}
	memory, err := m.keyed("proc/meminfo")
	if err != nil {
		return u, err
	}
	const kB = 1024
	u.SwapUsed = (memory["SwapTotal:"] - memory["SwapFree:"]) * kB
	if u.CPUNanos, err = m.cpu(); err != nil {
		return u, err
	}
	used, inactive, err := m.memory()
	if errors.Is(err, fs.ErrNotExist) {
		// A machine's own root cgroup, in version 2, counts no memory.
		used, inactive, err = (memory["MemTotal:"]-memory["MemFree:"])*kB, memory["Inactive(file):"]*kB, nil
	}
	u.Used, u.WorkingSet = used, used-min(used, inactive)
	return u, err
}

// cpu is the CPU time used, in nanoseconds.
func (m linuxMachine) cpu() (uint64, error) {
	stat, err := m.keyed("sys/fs/cgroup/cpu.stat") // version 2
	if err == nil {
		return stat["usage_usec"] * 1000, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	return m.number("sys/fs/cgroup/cpuacct/cpuacct.usage")
}

// memory is the memory used and the part of it that is inactive pages of files.
func (m linuxMachine) memory() (used, inactive uint64, err error) {
	for _, v := range []struct{ usage, stat, inactive string }{
		{"memory.current", "memory.stat", "inactive_file"},
		{"memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"},
	} {
		used, err = m.number(filepath.Join("sys/fs/cgroup", v.usage))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, 0, err
		}
		stat, err := m.keyed(filepath.Join("sys/fs/cgroup", v.stat))
		return used, stat[v.inactive], err
	}
	return 0, 0, err
}

func (m linuxMachine) number(path string) (uint64, error) {
	data, err := os.ReadFile(filepath.Join(m.root, path))
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return n, nil
}

// keyed reads lines of a name and a number, and perhaps a unit.
func (m linuxMachine) keyed(path string) (map[string]uint64, error) {
	data, err := os.ReadFile(filepath.Join(m.root, path))
	if err != nil {
		return nil, err
	}
	out := map[string]uint64{}
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 {
			continue
		}
		if n, err := strconv.ParseUint(fields[1], 10, 64); err == nil {
			out[fields[0]] = n
		}
	}
	return out, nil
}
