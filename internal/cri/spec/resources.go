package spec

import (
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// unset is what the CRI sends for a limit that isn't to be touched.
const unset = 0

func (b *builder) resources() {
	r := b.linux.GetResources()
	b.spec.Linux.Resources = Resources(r, b.Host)
	if r == nil {
		return
	}
	adj := max(int(r.GetOomScoreAdj()), b.Host.MinOOMScoreAdj)
	b.spec.Process.OOMScoreAdj = &adj
}

// Resources translates the CRI's limits for a container. Zero values are left
// out, as the CRI means them.
func Resources(r *runtimeapi.LinuxContainerResources, host *Host) *specs.LinuxResources {
	out := &specs.LinuxResources{}
	if r == nil {
		return out
	}
	out.CPU = cpu(r)
	out.Memory = memory(r, host)
	out.Unified = r.GetUnified()
	for _, l := range r.GetHugepageLimits() {
		// A limit on a size that can't be limited can't be exceeded either.
		if slices.Contains(host.Hugepages, l.GetPageSize()) {
			out.HugepageLimits = append(out.HugepageLimits, specs.LinuxHugepageLimit{Pagesize: l.GetPageSize(), Limit: l.GetLimit()})
		}
	}
	return out
}

func cpu(r *runtimeapi.LinuxContainerResources) *specs.LinuxCPU {
	c := &specs.LinuxCPU{Cpus: r.GetCpusetCpus(), Mems: r.GetCpusetMems()}
	if v := r.GetCpuShares(); v != unset {
		shares := uint64(v)
		c.Shares = &shares
	}
	if v := r.GetCpuQuota(); v != unset {
		c.Quota = &v
	}
	if v := r.GetCpuPeriod(); v != unset {
		period := uint64(v)
		c.Period = &period
	}
	return c
}

// memory limits memory, and swap along with it where the host can: without a
// limit of its own a container gets no swap beyond its memory limit.
func memory(r *runtimeapi.LinuxContainerResources, host *Host) *specs.LinuxMemory {
	m := &specs.LinuxMemory{}
	limit, swap := r.GetMemoryLimitInBytes(), r.GetMemorySwapLimitInBytes()
	if limit != unset {
		m.Limit = &limit
		if swap == unset {
			swap = limit
		}
	}
	if swap != unset && host.SwapAccounting {
		m.Swap = &swap
	}
	return m
}
