package metrics

import (
	"slices"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"errand.dev/errand/internal/cri/cgroups"
)

const second = 1e9 // in nanoseconds

func counter(name, help string, read func(Container) uint64) metric[Container] {
	return metric[Container]{name, help, runtimeapi.MetricType_COUNTER, nil, func(c Container) []sample { return value(read(c)) }}
}

func gauge(name, help string, read func(Container) uint64) metric[Container] {
	return metric[Container]{name, help, runtimeapi.MetricType_GAUGE, nil, func(c Container) []sample { return value(read(c)) }}
}

func containerMetrics() []metric[Container] {
	return slices.Concat(cpuMetrics(), memoryMetrics(), diskMetrics(), processMetrics(), specMetrics(), pressureMetrics())
}

func cpuMetrics() []metric[Container] {
	return []metric[Container]{
		counter("container_cpu_usage_seconds_total", "CPU time used, in seconds", func(c Container) uint64 { return c.Stats.CPUNanos / second }),
		counter("container_cpu_user_seconds_total", "CPU time used in user mode, in seconds", func(c Container) uint64 { return c.Detail.CPUUser / second }),
		counter("container_cpu_system_seconds_total", "CPU time used in the kernel, in seconds", func(c Container) uint64 { return c.Detail.CPUSystem / second }),
		counter("container_cpu_cfs_periods_total", "Periods of the CPU quota that have passed", func(c Container) uint64 { return c.Detail.Periods }),
		counter("container_cpu_cfs_throttled_periods_total", "Periods in which the CPU quota was used up", func(c Container) uint64 { return c.Detail.ThrottledPeriods }),
		counter("container_cpu_cfs_throttled_seconds_total", "Time spent waiting for the next period, in seconds", func(c Container) uint64 { return c.Detail.CPUThrottled / second }),
	}
}

func memoryMetrics() []metric[Container] {
	return []metric[Container]{
		gauge("container_memory_usage_bytes", "Memory in use, cached files included", func(c Container) uint64 { return c.Stats.MemoryUsage }),
		gauge("container_memory_working_set_bytes", "Memory in use that the kernel would not drop first", func(c Container) uint64 { return c.Stats.WorkingSet }),
		gauge("container_memory_rss", "Anonymous memory in bytes", func(c Container) uint64 { return c.Stats.RSS }),
		gauge("container_memory_cache", "Cached files in bytes", func(c Container) uint64 { return c.Detail.Cache }),
		gauge("container_memory_mapped_file", "Mapped files in bytes", func(c Container) uint64 { return c.Detail.MappedFile }),
		gauge("container_memory_kernel_usage", "The kernel's memory for it in bytes", func(c Container) uint64 { return c.Detail.KernelMemory }),
		gauge("container_memory_swap", "Swap in use in bytes", func(c Container) uint64 { return c.Stats.SwapUsage }),
		gauge("container_memory_max_usage_bytes", "The most memory that was in use", func(c Container) uint64 { return c.Detail.PeakMemory }),
		counter("container_memory_failcnt", "How often memory was at its limit", func(c Container) uint64 { return c.Detail.LimitHits }),
		counter("container_oom_events_total", "Processes killed for want of memory", func(c Container) uint64 { return c.Detail.OOMKills }),
		{
			"container_memory_failures_total", "Page faults", runtimeapi.MetricType_COUNTER, []string{"failure_type", "scope"},
			func(c Container) []sample {
				return []sample{
					{[]string{"pgfault", "hierarchy"}, c.Stats.PageFaults},
					{[]string{"pgmajfault", "hierarchy"}, c.Stats.MajorFaults},
				}
			},
		},
	}
}

func diskMetrics() []metric[Container] {
	devices := func(name, help string, read func(cgroups.DeviceIO) uint64) metric[Container] {
		return metric[Container]{name, help, runtimeapi.MetricType_COUNTER, []string{"device"}, func(c Container) []sample {
			var out []sample
			for _, d := range c.Detail.Devices {
				out = append(out, sample{[]string{d.Device}, read(d)})
			}
			return out
		}}
	}
	return []metric[Container]{
		gauge("container_fs_usage_bytes", "What it has written to its root, in bytes on disk", func(c Container) uint64 { return c.Disk.Used }),
		gauge("container_fs_limit_bytes", "The size of the file system below its root", func(c Container) uint64 { return c.Disk.Size }),
		gauge("container_fs_inodes_free", "Free inodes of the file system below its root", func(c Container) uint64 { return c.Disk.FreeInodes }),
		gauge("container_fs_inodes_total", "Inodes of the file system below its root", func(c Container) uint64 { return c.Disk.Inodes }),
		devices("container_fs_reads_bytes_total", "Bytes read", func(d cgroups.DeviceIO) uint64 { return d.ReadBytes }),
		devices("container_fs_reads_total", "Reads", func(d cgroups.DeviceIO) uint64 { return d.Reads }),
		devices("container_fs_writes_bytes_total", "Bytes written", func(d cgroups.DeviceIO) uint64 { return d.WriteBytes }),
		devices("container_fs_writes_total", "Writes", func(d cgroups.DeviceIO) uint64 { return d.Writes }),
		{
			"container_blkio_device_usage_total", "Bytes read from a block device, or written to it", runtimeapi.MetricType_COUNTER, []string{"device", "operation"},
			func(c Container) []sample {
				var out []sample
				for _, d := range c.Detail.Devices {
					out = append(out, sample{[]string{d.Device, "Read"}, d.ReadBytes}, sample{[]string{d.Device, "Write"}, d.WriteBytes})
				}
				return out
			},
		},
	}
}

func processMetrics() []metric[Container] {
	return []metric[Container]{
		gauge("container_processes", "Processes", func(c Container) uint64 { return c.Processes }),
		gauge("container_threads", "Threads", func(c Container) uint64 { return c.Detail.Threads }),
		gauge("container_threads_max", "The most threads that it may have; 0 for no limit", func(c Container) uint64 { return c.Detail.MaxThreads }),
		gauge("container_file_descriptors", "Open file descriptors", func(c Container) uint64 { return c.OpenFiles }),
		gauge("container_sockets", "Open sockets", func(c Container) uint64 { return c.Sockets }),
		gauge("container_last_seen", "When this was measured, in Unix time", func(c Container) uint64 { return uint64(c.At.Unix()) }),
		gauge("container_start_time_seconds", "When it was started, in Unix time", func(c Container) uint64 { return uint64(c.StartedAt.Unix()) }),
	}
}

// specMetrics tell the limits. One that isn't set has no value, but that of
// memory, which is 0.
func specMetrics() []metric[Container] {
	set := func(name, help string, read func(*runtimeapi.LinuxContainerResources) int64) metric[Container] {
		return metric[Container]{name, help, runtimeapi.MetricType_GAUGE, nil, func(c Container) []sample {
			if n := read(c.Resources); n > 0 {
				return value(uint64(n))
			}
			return nil
		}}
	}
	positive := func(n int64) uint64 { return uint64(max(n, 0)) }
	return []metric[Container]{
		set("container_spec_cpu_period", "The period of the CPU quota, in microseconds", (*runtimeapi.LinuxContainerResources).GetCpuPeriod),
		set("container_spec_cpu_quota", "The CPU quota, in microseconds of each period", (*runtimeapi.LinuxContainerResources).GetCpuQuota),
		set("container_spec_cpu_shares", "The share of the CPU", (*runtimeapi.LinuxContainerResources).GetCpuShares),
		gauge("container_spec_memory_limit_bytes", "The memory limit; 0 for none", func(c Container) uint64 { return positive(c.Resources.GetMemoryLimitInBytes()) }),
		gauge("container_spec_memory_reservation_limit_bytes", "The memory reservation; the CRI sets none", func(Container) uint64 { return 0 }),
		gauge("container_spec_memory_swap_limit_bytes", "The limit of memory and swap; 0 for none", func(c Container) uint64 { return positive(c.Resources.GetMemorySwapLimitInBytes()) }),
	}
}

// pressureMetrics are there on kernels with pressure stall information, for
// cgroups of version 2.
func pressureMetrics() []metric[Container] {
	var out []metric[Container]
	for _, of := range []struct {
		name string
		read func(*cgroups.Stats) *runtimeapi.PsiStats
	}{
		{"cpu", func(s *cgroups.Stats) *runtimeapi.PsiStats { return s.CPUPressure }},
		{"memory", func(s *cgroups.Stats) *runtimeapi.PsiStats { return s.MemoryPressure }},
		{"io", func(s *cgroups.Stats) *runtimeapi.PsiStats { return s.IOPressure }},
	} {
		pressure := func(name, help string, total func(*runtimeapi.PsiStats) *runtimeapi.PsiData) metric[Container] {
			return metric[Container]{name, help, runtimeapi.MetricType_COUNTER, nil, func(c Container) []sample {
				p := of.read(c.Stats)
				if p == nil {
					return nil
				}
				return value(total(p).GetTotal() / second)
			}}
		}
		out = append(out,
			pressure("container_pressure_"+of.name+"_waiting_seconds_total", "Time in which some processes waited for "+of.name+", in seconds", (*runtimeapi.PsiStats).GetSome),
			pressure("container_pressure_"+of.name+"_stalled_seconds_total", "Time in which all processes waited for "+of.name+", in seconds", (*runtimeapi.PsiStats).GetFull))
	}
	return out
}
