package cgroups

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ErrNotFound says that there is no such cgroup.
var ErrNotFound = errors.New("no such cgroup")

// Stats is what a cgroup and those below it have used. A field that the kernel
// doesn't account is zero.
type Stats struct {
	CPUNanos uint64 // CPU time since the cgroup was made
	// In bytes. WorkingSet is Usage without what the kernel would drop first.
	MemoryUsage, WorkingSet, RSS uint64
	// MemoryLimit in bytes, 0 for none.
	MemoryLimit             uint64
	PageFaults, MajorFaults uint64
	SwapUsage               uint64
	Processes               uint64
	// Pressure stall information; nil where the kernel has none (version 1).
	CPUPressure, MemoryPressure, IOPressure *runtimeapi.PsiStats
}

// Stats reads a cgroup's usage. The error wraps ErrNotFound when the cgroup is
// gone.
func (t *Tree) Stats(path string) (*Stats, error) {
	if !t.Exists(path) {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, path)
	}
	r := &reader{tree: t, path: path}
	s := &Stats{}
	if t.v2 {
		r.v2(s)
	} else {
		r.v1(s)
	}
	if r.err != nil {
		return nil, fmt.Errorf("read the usage of the cgroup %s: %w", path, r.err)
	}
	return s, nil
}

// reader reads a cgroup's files and keeps the first error. Files that aren't
// there count as zero: their controller may be off.
type reader struct {
	tree *Tree
	path string
	err  error
}

func (r *reader) v2(s *Stats) {
	s.CPUNanos = r.keyed("cpu.stat")["usage_usec"] * 1000
	stat := r.keyed("memory.stat")
	s.MemoryUsage, s.MemoryLimit = r.number("memory.current"), r.number("memory.max")
	s.RSS, s.PageFaults, s.MajorFaults = stat["anon"], stat["pgfault"], stat["pgmajfault"]
	s.WorkingSet = minus(s.MemoryUsage, stat["inactive_file"])
	s.SwapUsage, s.Processes = r.number("memory.swap.current"), r.number("pids.current")
	s.CPUPressure, s.MemoryPressure, s.IOPressure = r.pressure("cpu.pressure"), r.pressure("memory.pressure"), r.pressure("io.pressure")
}

func (r *reader) v1(s *Stats) {
	s.CPUNanos = r.number("cpuacct/cpuacct.usage")
	stat := r.keyed("memory/memory.stat")
	s.MemoryUsage = r.number("memory/memory.usage_in_bytes")
	s.RSS, s.PageFaults, s.MajorFaults = stat["total_rss"], stat["total_pgfault"], stat["total_pgmajfault"]
	s.WorkingSet = minus(s.MemoryUsage, stat["total_inactive_file"])
	s.SwapUsage, s.Processes = stat["total_swap"], r.number("pids/pids.current")
	// Without a limit the kernel shows the largest number of pages there is.
	const noLimit = 1 << 62
	if l := r.number("memory/memory.limit_in_bytes"); l < noLimit {
		s.MemoryLimit = l
	}
}

func minus(a, b uint64) uint64 {
	if b > a {
		return 0
	}
	return a - b
}

func (r *reader) read(file string) []byte {
	b, err := os.ReadFile(r.tree.file(r.path, file))
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.EOPNOTSUPP) {
		r.fail(err)
	}
	return bytes.TrimSpace(b)
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

func (r *reader) number(file string) uint64 {
	s := string(r.read(file))
	if s == "" || s == "max" {
		return 0
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		r.fail(fmt.Errorf("%s: %w", file, err))
	}
	return n
}

// keyed reads lines of "name number".
func (r *reader) keyed(file string) map[string]uint64 {
	out := map[string]uint64{}
	for sc := bufio.NewScanner(bytes.NewReader(r.read(file))); sc.Scan(); {
		name, value, _ := strings.Cut(sc.Text(), " ")
		n, err := strconv.ParseUint(value, 10, 64)
		if err != nil {
			r.fail(fmt.Errorf("%s: %s: %w", file, name, err))
			return out
		}
		out[name] = n
	}
	return out
}

// pressure reads lines of "some avg10=0.00 avg60=0.00 avg300=0.00 total=0".
func (r *reader) pressure(file string) *runtimeapi.PsiStats {
	b := r.read(file)
	if len(b) == 0 {
		return nil
	}
	out := &runtimeapi.PsiStats{}
	for sc := bufio.NewScanner(bytes.NewReader(b)); sc.Scan(); {
		kind, rest, _ := strings.Cut(sc.Text(), " ")
		d := &runtimeapi.PsiData{}
		var µs uint64
		if _, err := fmt.Sscanf(rest, "avg10=%f avg60=%f avg300=%f total=%d", &d.Avg10, &d.Avg60, &d.Avg300, &µs); err != nil {
			r.fail(fmt.Errorf("%s: %w", file, err))
			return nil
		}
		d.Total = µs * 1000
		if kind == "full" {
			out.Full = d
		} else {
			out.Some = d
		}
	}
	return out
}
