package podserver

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// summary tells what the node and its pods use of CPU and memory, in the form of
// the kubelet's /stats/summary. What it doesn't know (file systems, networks) is
// left out, as that API allows.
func (s *Server) summary(w http.ResponseWriter, req *http.Request) error {
	answer, err := s.usage(req.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, answer)
}

// usage measures what the node and its pods use.
func (s *Server) usage(ctx context.Context) (*statsapi.Summary, error) {
	stats, err := s.cfg.Runtime.ListPodSandboxStats(ctx, nil)
	if err != nil {
		return nil, err
	}
	containers, err := s.cfg.Runtime.ListContainers(ctx, &runtimeapi.ContainerFilter{
		State: &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING},
	})
	if err != nil {
		return nil, err
	}
	// As in the kubelet: a container is started as soon as it is created.
	started := make(map[string]metav1.Time, len(containers))
	for _, c := range containers {
		started[c.GetId()] = at(c.GetCreatedAt())
	}
	answer := &statsapi.Summary{Node: s.nodeStats(ctx), Pods: make([]statsapi.PodStats, 0, len(stats))}
	for _, p := range stats {
		meta := p.GetAttributes().GetMetadata()
		pod, ok := s.cfg.Pods.Pod(meta.GetNamespace(), meta.GetName())
		if !ok || string(pod.UID) != meta.GetUid() {
			continue // it is gone from the API
		}
		entry := podStats(p, started)
		if pod.Status.StartTime != nil {
			entry.StartTime = *pod.Status.StartTime
		}
		answer.Pods = append(answer.Pods, entry)
	}
	slices.SortFunc(answer.Pods, func(a, b statsapi.PodStats) int {
		return cmp.Or(cmp.Compare(a.PodRef.Namespace, b.PodRef.Namespace), cmp.Compare(a.PodRef.Name, b.PodRef.Name))
	})
	return answer, nil
}

// nodeStats is the node's own usage. Its pods' is worth telling without it.
func (s *Server) nodeStats(ctx context.Context) statsapi.NodeStats {
	stats := statsapi.NodeStats{NodeName: s.cfg.NodeName}
	u, err := s.cfg.Machine.Usage()
	if err != nil {
		klog.FromContext(ctx).Error(err, "The machine's usage can't be read")
		return stats
	}
	now := metav1.NewTime(u.At)
	stats.CPU = &statsapi.CPUStats{Time: now, UsageCoreNanoSeconds: &u.CPUNanos}
	stats.Memory = &statsapi.MemoryStats{Time: now, UsageBytes: &u.Used, WorkingSetBytes: &u.WorkingSet}
	stats.Swap = &statsapi.SwapStats{Time: now, SwapUsageBytes: &u.SwapUsed}
	return stats
}

func podStats(p *runtimeapi.PodSandboxStats, started map[string]metav1.Time) statsapi.PodStats {
	meta, linux := p.GetAttributes().GetMetadata(), p.GetLinux()
	out := statsapi.PodStats{
		PodRef:     statsapi.PodReference{Name: meta.GetName(), Namespace: meta.GetNamespace(), UID: meta.GetUid()},
		Containers: []statsapi.ContainerStats{},
		CPU:        cpuStats(linux.GetCpu()),
		Memory:     memoryStats(linux.GetMemory()),
	}
	for _, c := range linux.GetContainers() {
		out.Containers = append(out.Containers, statsapi.ContainerStats{
			Name:      c.GetAttributes().GetMetadata().GetName(),
			StartTime: started[c.GetAttributes().GetId()],
			CPU:       cpuStats(c.GetCpu()),
			Memory:    memoryStats(c.GetMemory()),
			Swap:      swapStats(c.GetSwap()),
		})
	}
	return out
}

func cpuStats(c *runtimeapi.CpuUsage) *statsapi.CPUStats {
	if c == nil {
		return nil
	}
	return &statsapi.CPUStats{
		Time:                 at(c.GetTimestamp()),
		UsageNanoCores:       number(c.GetUsageNanoCores()),
		UsageCoreNanoSeconds: number(c.GetUsageCoreNanoSeconds()),
	}
}

func memoryStats(m *runtimeapi.MemoryUsage) *statsapi.MemoryStats {
	if m == nil {
		return nil
	}
	return &statsapi.MemoryStats{
		Time:            at(m.GetTimestamp()),
		AvailableBytes:  number(m.GetAvailableBytes()),
		UsageBytes:      number(m.GetUsageBytes()),
		WorkingSetBytes: number(m.GetWorkingSetBytes()),
		RSSBytes:        number(m.GetRssBytes()),
		PageFaults:      number(m.GetPageFaults()),
		MajorPageFaults: number(m.GetMajorPageFaults()),
	}
}

func swapStats(s *runtimeapi.SwapUsage) *statsapi.SwapStats {
	if s == nil {
		return nil
	}
	return &statsapi.SwapStats{
		Time:               at(s.GetTimestamp()),
		SwapAvailableBytes: number(s.GetSwapAvailableBytes()),
		SwapUsageBytes:     number(s.GetSwapUsageBytes()),
	}
}

func at(nanos int64) metav1.Time { return metav1.NewTime(time.Unix(0, nanos)) }

func number(v *runtimeapi.UInt64Value) *uint64 {
	if v == nil {
		return nil
	}
	return &v.Value
}
