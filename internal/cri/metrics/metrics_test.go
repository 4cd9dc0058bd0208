package metrics

import (
	"slices"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"errand.dev/errand/internal/cri/cgroups"
	"errand.dev/errand/internal/cri/network"
)

func measured() Container {
	psi := &runtimeapi.PsiStats{Some: &runtimeapi.PsiData{Total: 3e9}, Full: &runtimeapi.PsiData{Total: 2e9}}
	return Container{
		Subject: Subject{Container: "main", ID: "/errand/pod/abc", Name: "abc", Image: "busybox", Namespace: "ns", Pod: "pod"},
		Stats: &cgroups.Stats{
			CPUNanos: 2_900_000_000, MemoryUsage: 100, WorkingSet: 80, PageFaults: 7, MajorFaults: 1,
			CPUPressure: psi, MemoryPressure: psi, IOPressure: psi,
		},
		Detail: &cgroups.Detail{Threads: 3, Devices: []cgroups.DeviceIO{{Device: "8:0", ReadBytes: 10, WriteBytes: 20}, {Device: "8:16"}}},
		Resources: &runtimeapi.LinuxContainerResources{
			CpuPeriod: 100000, CpuQuota: 20000, CpuShares: 1024, MemoryLimitInBytes: 500, MemorySwapLimitInBytes: -1,
		},
		StartedAt: time.Unix(1000, 0), At: time.Unix(1005, 0), Processes: 2, OpenFiles: 9, Sockets: 4,
	}
}

func pod() Pod {
	return Pod{Subject: Subject{Container: "POD", Name: "sb", Pod: "pod"}, Network: &network.Usage{Interface: "eth0", RxBytes: 5, TxPackets: 6}}
}

// valuesOf are a metric's values by their labels beyond the subject's.
func valuesOf(all []*runtimeapi.Metric, name string) map[string]uint64 {
	out := map[string]uint64{}
	for _, m := range all {
		if m.GetName() == name {
			key := ""
			for _, l := range m.GetLabelValues()[len(subjectKeys()):] {
				key += l + ";"
			}
			out[key] = m.GetValue().GetValue()
		}
	}
	return out
}

func TestValues(t *testing.T) {
	all := append(measured().Of(), pod().Of()...)
	for name, want := range map[string]map[string]uint64{
		"container_cpu_usage_seconds_total":              {"": 2},
		"container_memory_working_set_bytes":             {"": 80},
		"container_memory_failures_total":                {"pgfault;hierarchy;": 7, "pgmajfault;hierarchy;": 1},
		"container_fs_reads_bytes_total":                 {"8:0;": 10, "8:16;": 0},
		"container_blkio_device_usage_total":             {"8:0;Read;": 10, "8:0;Write;": 20, "8:16;Read;": 0, "8:16;Write;": 0},
		"container_pressure_io_waiting_seconds_total":    {"": 3},
		"container_pressure_io_stalled_seconds_total":    {"": 2},
		"container_spec_cpu_quota":                       {"": 20000},
		"container_spec_memory_swap_limit_bytes":         {"": 0},
		"container_start_time_seconds":                   {"": 1000},
		"container_last_seen":                            {"": 1005},
		"container_sockets":                              {"": 4},
		"container_network_receive_bytes_total":          {"eth0;": 5},
		"container_network_transmit_packets_total":       {"eth0;": 6},
		"container_network_receive_errors_total":         {"eth0;": 0},
		"container_no_such_metric_of_which_nobody_tells": {},
	} {
		got := valuesOf(all, name)
		if len(got) != len(want) {
			t.Errorf("%s: %v, want %v", name, got, want)
			continue
		}
		for labels, n := range want {
			if v, ok := got[labels]; !ok || v != n {
				t.Errorf("%s: %v, want %v", name, got, want)
			}
		}
	}
}

// What can't be told is left out rather than told as 0.
func TestWhatIsNotThereHasNoValue(t *testing.T) {
	c := measured()
	c.Stats.CPUPressure, c.Resources, c.Detail.Devices = nil, nil, nil
	all := c.Of()
	for _, name := range []string{"container_pressure_cpu_waiting_seconds_total", "container_spec_cpu_shares", "container_fs_reads_total"} {
		if got := valuesOf(all, name); len(got) != 0 {
			t.Errorf("%s: %v", name, got)
		}
	}
	if got := (Pod{}).Of(); got != nil {
		t.Errorf("a pod in the host's network: %v", got)
	}
}

// Every metric is described, once, and has as many values of labels as keys.
func TestDescriptors(t *testing.T) {
	keys := map[string][]string{}
	for _, d := range Descriptors() {
		if d.GetHelp() == "" || keys[d.GetName()] != nil {
			t.Errorf("%s: help %q, or it is there twice", d.GetName(), d.GetHelp())
		}
		if slices.Contains(d.GetLabelKeys(), "") {
			t.Errorf("%s: label keys %q", d.GetName(), d.GetLabelKeys())
		}
		keys[d.GetName()] = d.GetLabelKeys()
	}
	told := map[string]bool{}
	for _, m := range append(measured().Of(), pod().Of()...) {
		told[m.GetName()] = true
		if len(m.GetLabelValues()) != len(keys[m.GetName()]) {
			t.Errorf("%s: label values %q for keys %q", m.GetName(), m.GetLabelValues(), keys[m.GetName()])
		}
	}
	if len(told) != len(keys) {
		t.Errorf("%d metrics are described, %d told", len(keys), len(told))
	}
}
