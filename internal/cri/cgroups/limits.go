package cgroups

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/cgroups"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Limits of a pod, in the CRI's units (bytes, microseconds, shares). A nil
// message and zero fields set no limit.
type Limits = *runtimeapi.LinuxContainerResources

// PodLimits is what the pod's cgroup may use: what its containers may, and
// what RuntimeClass.overhead adds. A pod without a limit gets none by its
// overhead.
func PodLimits(resources, overhead Limits) Limits {
	if resources == nil {
		return nil
	}
	sum := func(r, o int64) int64 {
		if r <= 0 {
			return r
		}
		return r + o
	}
	return &runtimeapi.LinuxContainerResources{
		CpuPeriod:              resources.GetCpuPeriod(),
		CpuQuota:               sum(resources.GetCpuQuota(), scaled(overhead, resources.GetCpuPeriod())),
		CpuShares:              sum(resources.GetCpuShares(), overhead.GetCpuShares()),
		MemoryLimitInBytes:     sum(resources.GetMemoryLimitInBytes(), overhead.GetMemoryLimitInBytes()),
		MemorySwapLimitInBytes: resources.GetMemorySwapLimitInBytes(),
		CpusetCpus:             resources.GetCpusetCpus(),
		CpusetMems:             resources.GetCpusetMems(),
		HugepageLimits:         resources.GetHugepageLimits(),
		Unified:                resources.GetUnified(),
	}
}

// scaled is the overhead's CPU quota over another period.
func scaled(overhead Limits, period int64) int64 {
	quota, own := overhead.GetCpuQuota(), overhead.GetCpuPeriod()
	if quota <= 0 || own <= 0 || period <= 0 {
		return max(quota, 0)
	}
	return quota * period / own
}

// setting is one file of a cgroup and what is to be written there. On version
// 1 the file begins with the hierarchy's name.
type setting struct{ file, value string }

func (s setting) ofHugePages() bool { return strings.HasPrefix(filepath.Base(s.file), "hugetlb.") }

// Update sets the cgroup's limits.
func (t *Tree) Update(path string, limits Limits) error {
	settings, err := t.settings(limits)
	if err != nil {
		return err
	}
	var again []setting
	for _, s := range settings {
		err := t.set(path, s)
		if errors.Is(err, fs.ErrNotExist) && s.ofHugePages() {
			continue // a size that can't be limited can't be exceeded either
		}
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EBUSY) {
			// Two of them may bound each other (quota and period, memory with
			// and without swap): which goes first depends on the direction.
			again = append(again, s)
			continue
		}
		if err != nil {
			return err
		}
	}
	slices.Reverse(again)
	for _, s := range again {
		if err := t.set(path, s); err != nil {
			return err
		}
	}
	return nil
}

func (t *Tree) set(path string, s setting) error {
	if err := write(t.file(path, s.file), s.value); err != nil {
		return fmt.Errorf("set %s of the cgroup %s to %q: %w", filepath.Base(s.file), path, s.value, err)
	}
	return nil
}

// file is the path of a cgroup's file. On version 1 name is "<hierarchy>/<file>".
func (t *Tree) file(path, name string) string {
	if t.v2 {
		return filepath.Join(t.root, path, name)
	}
	hierarchy, name, _ := strings.Cut(name, "/")
	return filepath.Join(t.root, hierarchy, path, name)
}

func (t *Tree) settings(l Limits) ([]setting, error) {
	if l == nil {
		return nil, nil
	}
	if t.v2 {
		return v2Settings(l)
	}
	if len(l.GetUnified()) > 0 {
		return nil, errors.New("limits by the names of cgroup v2's files need cgroup v2, and this host's controllers are on version 1")
	}
	return v1Settings(l), nil
}

const defaultPeriod = 100_000 // µs, the kernel's own

func v2Settings(l Limits) ([]setting, error) {
	var out []setting
	add := func(file, value string) { out = append(out, setting{file, value}) }
	if s := l.GetCpuShares(); s > 0 {
		add("cpu.weight", strconv.FormatUint(cgroups.ConvertCPUSharesToCgroupV2Value(uint64(s)), 10))
	}
	if q, p := l.GetCpuQuota(), l.GetCpuPeriod(); q != 0 || p != 0 {
		if p == 0 {
			p = defaultPeriod
		}
		quota := "max"
		if q > 0 {
			quota = strconv.FormatInt(q, 10)
		}
		add("cpu.max", quota+" "+strconv.FormatInt(p, 10))
	}
	if m := l.GetMemoryLimitInBytes(); m != 0 {
		add("memory.max", bytesOrMax(m))
	}
	if swap := l.GetMemorySwapLimitInBytes(); swap != 0 {
		if m := l.GetMemoryLimitInBytes(); swap > 0 && m > 0 {
			// The CRI counts memory and swap together, version 2 swap alone.
			swap = max(swap-m, 0)
			add("memory.swap.max", strconv.FormatInt(swap, 10))
		} else {
			add("memory.swap.max", bytesOrMax(swap))
		}
	}
	out = append(out, cpusets("", l)...)
	for _, h := range l.GetHugepageLimits() {
		add("hugetlb."+h.GetPageSize()+".max", strconv.FormatUint(h.GetLimit(), 10))
	}
	for _, name := range sortedKeys(l.GetUnified()) {
		if strings.Contains(name, "/") {
			return nil, fmt.Errorf("%q is no name of a cgroup's file", name)
		}
		add(name, l.GetUnified()[name])
	}
	return out, nil
}

func bytesOrMax(n int64) string {
	if n < 0 {
		return "max"
	}
	return strconv.FormatInt(n, 10)
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func v1Settings(l Limits) []setting {
	var out []setting
	number := func(file string, n int64) {
		if n != 0 {
			out = append(out, setting{file, strconv.FormatInt(n, 10)})
		}
	}
	number("cpu/cpu.shares", l.GetCpuShares())
	number("cpu/cpu.cfs_period_us", l.GetCpuPeriod())
	number("cpu/cpu.cfs_quota_us", l.GetCpuQuota())
	number("memory/memory.limit_in_bytes", l.GetMemoryLimitInBytes())
	number("memory/memory.memsw.limit_in_bytes", l.GetMemorySwapLimitInBytes())
	out = append(out, cpusets("cpuset/", l)...)
	for _, h := range l.GetHugepageLimits() {
		out = append(out, setting{"hugetlb/hugetlb." + h.GetPageSize() + ".limit_in_bytes", strconv.FormatUint(h.GetLimit(), 10)})
	}
	return out
}

func cpusets(prefix string, l Limits) []setting {
	var out []setting
	if v := l.GetCpusetCpus(); v != "" {
		out = append(out, setting{prefix + "cpuset.cpus", v})
	}
	if v := l.GetCpusetMems(); v != "" {
		out = append(out, setting{prefix + "cpuset.mems", v})
	}
	return out
}
