package podserver

import (
	"cmp"
	"net/http"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// summary tells what the pods use of CPU and memory, in the form of the
// kubelet's /stats/summary. What it doesn't know (the node's own usage, file
// systems) is left out, as that API allows.
func (s *Server) summary(w http.ResponseWriter, req *http.Request) error {
	stats, err := s.cfg.Runtime.ListPodSandboxStats(req.Context(), nil)
	if err != nil {
		return err
	}
	answer := statsapi.Summary{Pods: make([]statsapi.PodStats, 0, len(stats))}
	for _, pod := range s.cfg.Pods.Pods() {
		answer.Node.NodeName = pod.Spec.NodeName
		i := slices.IndexFunc(stats, func(p *runtimeapi.PodSandboxStats) bool {
			return p.GetAttributes().GetMetadata().GetUid() == string(pod.UID)
		})
		if i < 0 {
			continue
		}
		entry := podStats(stats[i])
		if pod.Status.StartTime != nil {
			entry.StartTime = *pod.Status.StartTime
		}
		answer.Pods = append(answer.Pods, entry)
	}
	slices.SortFunc(answer.Pods, func(a, b statsapi.PodStats) int {
		return cmp.Or(cmp.Compare(a.PodRef.Namespace, b.PodRef.Namespace), cmp.Compare(a.PodRef.Name, b.PodRef.Name))
	})
	return writeJSON(w, answer)
}

func podStats(p *runtimeapi.PodSandboxStats) statsapi.PodStats {
	meta, linux := p.GetAttributes().GetMetadata(), p.GetLinux()
	out := statsapi.PodStats{
		PodRef:     statsapi.PodReference{Name: meta.GetName(), Namespace: meta.GetNamespace(), UID: meta.GetUid()},
		Containers: []statsapi.ContainerStats{},
		CPU:        cpuStats(linux.GetCpu()),
		Memory:     memoryStats(linux.GetMemory()),
	}
	for _, c := range linux.GetContainers() {
		out.Containers = append(out.Containers, statsapi.ContainerStats{
			Name:   c.GetAttributes().GetMetadata().GetName(),
			CPU:    cpuStats(c.GetCpu()),
			Memory: memoryStats(c.GetMemory()),
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

func at(nanos int64) metav1.Time { return metav1.NewTime(time.Unix(0, nanos)) }

func number(v *runtimeapi.UInt64Value) *uint64 {
	if v == nil {
		return nil
	}
	return &v.Value
}
