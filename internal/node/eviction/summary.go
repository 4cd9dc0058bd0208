package eviction

import (
	"context"
	"errors"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	evictionapi "k8s.io/kubernetes/pkg/kubelet/eviction/api"
	"k8s.io/utils/ptr"
)

// Get implements upstream's SummaryProvider: the machine's usage, and that of
// pods as far as this look needs it.
func (s seam) Get(ctx context.Context, _ bool) (*statsapi.Summary, error) {
	now, err := s.cfg.Host.Read()
	if err != nil {
		return nil, err
	}
	at := metav1.NewTime(s.cfg.Clock.Now())
	summary := &statsapi.Summary{Node: nodeStats(now, at)}
	summary.Pods, err = s.podStats(ctx, pressing(s.thresholds, now), at)
	return summary, err
}

// GetCPUAndMemoryStats is never called by upstream's eviction manager.
func (seam) GetCPUAndMemoryStats(context.Context) (*statsapi.Summary, error) {
	return nil, errors.New("eviction: no such statistics")
}

// nodeStats is a reading as the kubelet's summary has it.
func nodeStats(r Reading, at metav1.Time) statsapi.NodeStats {
	image := fsStats(r.ImageFS, at)
	return statsapi.NodeStats{
		Memory: &statsapi.MemoryStats{
			Time:           at,
			AvailableBytes: unsigned(r.Memory.Capacity - r.Memory.WorkingSet), WorkingSetBytes: unsigned(r.Memory.WorkingSet),
		},
		Fs:      fsStats(r.NodeFS, at),
		Runtime: &statsapi.RuntimeStats{ImageFs: image, ContainerFs: image},
		Rlimit:  &statsapi.RlimitStats{Time: at, MaxPID: &r.TasksMax, NumOfRunningProcesses: &r.Tasks},
		// Looked for, though none of its signals is in use.
		SystemContainers: []statsapi.ContainerStats{{Name: statsapi.SystemContainerPods}},
	}
}

// fsStats leaves out inodes that the file system doesn't count.
func fsStats(f Filesystem, at metav1.Time) *statsapi.FsStats {
	out := &statsapi.FsStats{Time: at, AvailableBytes: unsigned(f.Available), CapacityBytes: unsigned(f.Capacity)}
	// Upstream complains, at each look, of a signal that isn't there: a file
	// system without an account of inodes has one, and has it free.
	out.Inodes, out.InodesFree = unsigned(max(f.Inodes, 1)), unsigned(max(f.InodesFree, 1-min(f.Inodes, 1)))
	return out
}

func unsigned(n int64) *uint64 { return ptr.To(uint64(max(n, 0))) }

// pressing are the resources that are, or may soon be, needed back: those of
// thresholds that are met, what is to be free beyond them included.
func pressing(thresholds []evictionapi.Threshold, now Reading) map[v1.ResourceName]bool {
	out := map[v1.ResourceName]bool{}
	for _, t := range thresholds {
		o, known := observations[t.Signal]
		if !known {
			continue
		}
		capacity, available := o.of(now)
		quantity := resource.NewQuantity(capacity, resource.BinarySI)
		needed := evictionapi.GetThresholdQuantity(t.Value, quantity).Value()
		if t.MinReclaim != nil {
			needed += evictionapi.GetThresholdQuantity(*t.MinReclaim, quantity).Value()
		}
		if available < needed {
			out[o.resource] = true
		}
	}
	return out
}

// observation is what a signal measures.
type observation struct {
	resource v1.ResourceName
	of       func(Reading) (capacity, available int64)
}

const (
	resourceDisk = v1.ResourceEphemeralStorage
	resourcePIDs = v1.ResourceName("pids")
)

var observations = map[evictionapi.Signal]observation{
	evictionapi.SignalMemoryAvailable: {v1.ResourceMemory, func(r Reading) (int64, int64) {
		return r.Memory.Capacity, r.Memory.Capacity - r.Memory.WorkingSet
	}},
	evictionapi.SignalNodeFsAvailable:   {resourceDisk, func(r Reading) (int64, int64) { return r.NodeFS.Capacity, r.NodeFS.Available }},
	evictionapi.SignalImageFsAvailable:  {resourceDisk, func(r Reading) (int64, int64) { return r.ImageFS.Capacity, r.ImageFS.Available }},
	evictionapi.SignalNodeFsInodesFree:  {resourceDisk, func(r Reading) (int64, int64) { return r.NodeFS.Inodes, r.NodeFS.InodesFree }},
	evictionapi.SignalImageFsInodesFree: {resourceDisk, func(r Reading) (int64, int64) { return r.ImageFS.Inodes, r.ImageFS.InodesFree }},
	evictionapi.SignalPIDAvailable:      {resourcePIDs, func(r Reading) (int64, int64) { return r.TasksMax, r.TasksMax - r.Tasks }},
}

// podStats are what pods use: of memory and processes all of them if one of
// these is needed back; of the disk all of them if the disk is, and otherwise
// those with a limit on it.
func (m *Manager) podStats(ctx context.Context, need map[v1.ResourceName]bool, at metav1.Time) ([]statsapi.PodStats, error) {
	pods := m.pods.Active()
	if len(need) == 0 {
		// At rest, as nearly always.
		pods = slices.DeleteFunc(pods, func(p *v1.Pod) bool { return !limitsDisk(p) })
	}
	stats := make([]statsapi.PodStats, 0, len(pods))
	sandboxes := map[string]*runtimeapi.PodSandboxStats{}
	if need[v1.ResourceMemory] || need[resourcePIDs] {
		list, err := m.cfg.Runtime.ListPodSandboxStats(ctx, nil)
		if err != nil {
			return nil, err
		}
		for _, s := range list {
			sandboxes[s.GetAttributes().GetMetadata().GetUid()] = s
		}
	}
	for _, pod := range pods {
		entry := statsapi.PodStats{PodRef: statsapi.PodReference{Name: pod.Name, Namespace: pod.Namespace, UID: string(pod.UID)}}
		s := sandboxes[string(pod.UID)]
		if s != nil {
			addSandbox(&entry, s, at)
		}
		if need[resourceDisk] || limitsDisk(pod) {
			d, err := m.disks.of(ctx, pod)
			if err != nil {
				klog.FromContext(ctx).Error(err, "Cannot measure what a pod takes of the disk", "pod", klog.KObj(pod))
			} else {
				d.addTo(&entry, at)
			}
		} else if s == nil {
			continue
		}
		stats = append(stats, entry)
	}
	m.disks.forgetBut(pods)
	return stats, nil
}

// addSandbox adds what the runtime counts of a pod in memory.
func addSandbox(entry *statsapi.PodStats, s *runtimeapi.PodSandboxStats, at metav1.Time) {
	linux := s.GetLinux()
	if u := linux.GetMemory(); u != nil {
		entry.Memory = &statsapi.MemoryStats{Time: at, WorkingSetBytes: ptr.To(u.GetWorkingSetBytes().GetValue())}
	}
	if p := linux.GetProcess(); p != nil {
		entry.ProcessStats = &statsapi.ProcessStats{ProcessCount: ptr.To(p.GetProcessCount().GetValue())}
	}
	for _, c := range linux.GetContainers() {
		entry.Containers = append(entry.Containers, statsapi.ContainerStats{
			Name:   c.GetAttributes().GetMetadata().GetName(),
			Memory: &statsapi.MemoryStats{Time: at, WorkingSetBytes: ptr.To(c.GetMemory().GetWorkingSetBytes().GetValue())},
		})
	}
}
