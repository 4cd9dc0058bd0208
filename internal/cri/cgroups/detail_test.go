package cgroups

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDetailV2(t *testing.T) {
	f, tree := makeV2(t)
	f.put("errand/pod/cpu.stat", "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_periods 10\nnr_throttled 4\nthrottled_usec 9\n")
	f.put("errand/pod/memory.stat", "anon 300\nfile 50\nkernel 60\nfile_mapped 70\n")
	f.put("errand/pod/memory.peak", "1000\n")
	f.put("errand/pod/memory.events", "low 0\nhigh 0\nmax 3\noom 1\noom_kill 2\n")
	f.put("errand/pod/pids.current", "8\n")
	f.put("errand/pod/pids.max", "max\n")
	f.put("errand/pod/io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n7:0 \n")
	got, err := tree.Detail("/errand/pod")
	if err != nil {
		t.Fatal(err)
	}
	want := &Detail{
		CPUUser: 3000, CPUSystem: 2000, CPUThrottled: 9000, Periods: 10, ThrottledPeriods: 4,
		Cache: 50, MappedFile: 70, KernelMemory: 60, PeakMemory: 1000, LimitHits: 3, OOMKills: 2, Threads: 8,
		Devices: []DeviceIO{{Device: "8:0", ReadBytes: 1, WriteBytes: 2, Reads: 3, Writes: 4}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, err := tree.Detail("/errand/gone"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a cgroup that's gone: %v", err)
	}
	f.put("errand/pod/io.stat", "8:0 rbytes=many\n")
	if _, err := tree.Detail("/errand/pod"); err == nil || !strings.Contains(err.Error(), "io.stat") {
		t.Errorf("nonsense was read as a number: %v", err)
	}
}

func TestDetailV1(t *testing.T) {
	f, tree := makeV1(t)
	f.put("cpuacct/errand/pod/cpuacct.stat", "user 3\nsystem 2\n")
	f.put("cpu/errand/pod/cpu.stat", "nr_periods 10\nnr_throttled 4\nthrottled_time 9\n")
	f.put("memory/errand/pod/memory.stat", "cache 1\ntotal_cache 50\ntotal_mapped_file 70\n")
	f.put("memory/errand/pod/memory.kmem.usage_in_bytes", "60\n")
	f.put("memory/errand/pod/memory.max_usage_in_bytes", "1000\n")
	f.put("memory/errand/pod/memory.failcnt", "3\n")
	f.put("memory/errand/pod/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
	f.put("pids/errand/pod/pids.current", "8\n")
	f.put("pids/errand/pod/pids.max", "100\n")
	f.put("blkio/errand/pod/blkio.throttle.io_service_bytes_recursive", "8:0 Read 1\n8:0 Write 2\n8:0 Sync 3\nTotal 3\n")
	f.put("blkio/errand/pod/blkio.throttle.io_serviced_recursive", "8:0 Read 3\n8:0 Write 4\nTotal 7\n")
	got, err := tree.Detail("/errand/pod")
	if err != nil {
		t.Fatal(err)
	}
	want := &Detail{
		CPUUser: 30e6, CPUSystem: 20e6, CPUThrottled: 9, Periods: 10, ThrottledPeriods: 4,
		Cache: 50, MappedFile: 70, KernelMemory: 60, PeakMemory: 1000, LimitHits: 3, OOMKills: 2, Threads: 8, MaxThreads: 100,
		Devices: []DeviceIO{{Device: "8:0", ReadBytes: 1, WriteBytes: 2, Reads: 3, Writes: 4}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
