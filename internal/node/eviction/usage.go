package eviction

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	"errand.dev/errand/internal/fstree"
	"errand.dev/errand/internal/node/runtimepod"
)

// restAfterWalk is how many times as long as measuring a pod took it isn't
// measured again.
const restAfterWalk = 20

// LocalStorage is where a pod's data lies on this machine's disk, besides what
// containers write into their own file systems.
type LocalStorage struct {
	Volumes map[string]string // name → directory, of those that go with the pod
	Logs    string            // holds a directory per container
}

// limitsDisk tells whether there is anything that the pod may not exceed on disk.
func limitsDisk(pod *v1.Pod) bool {
	for i := range pod.Spec.Volumes {
		if e := pod.Spec.Volumes[i].EmptyDir; e != nil && e.Medium == v1.StorageMediumDefault && e.SizeLimit != nil && e.SizeLimit.Sign() > 0 {
			return true
		}
	}
	for _, containers := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			if _, limited := containers[i].Resources.Limits[v1.ResourceEphemeralStorage]; limited {
				return true
			}
		}
	}
	return false
}

// diskUsage is what a pod takes of the disk.
type diskUsage struct {
	volumes    map[string]fstree.Usage
	containers map[string]containerUsage
}

type containerUsage struct{ root, logs fstree.Usage }

// measured is a usage with when it was taken.
type measured struct {
	usage diskUsage
	until time.Time // it is good enough
}

// disks measures what pods take of the disk, each pod for a small part of the
// time. It isn't safe for concurrent use.
type disks struct {
	clock   clock.PassiveClock
	runtime Runtime
	where   func(*v1.Pod) LocalStorage
	last    map[types.UID]measured
}

// of is what the pod takes of the disk, or took a short while ago.
func (d *disks) of(ctx context.Context, pod *v1.Pod) (diskUsage, error) {
	begun := d.clock.Now()
	if m, ok := d.last[pod.UID]; ok && begun.Before(m.until) {
		return m.usage, nil
	}
	usage, err := d.measure(ctx, pod)
	if err != nil {
		return diskUsage{}, err
	}
	now := d.clock.Now()
	d.last[pod.UID] = measured{usage: usage, until: now.Add(restAfterWalk * now.Sub(begun))}
	return usage, nil
}

func (d *disks) forgetBut(pods []*v1.Pod) {
	for uid := range d.last {
		if !slices.ContainsFunc(pods, func(p *v1.Pod) bool { return p.UID == uid }) {
			delete(d.last, uid)
		}
	}
}

func (d *disks) measure(ctx context.Context, pod *v1.Pod) (diskUsage, error) {
	u := diskUsage{volumes: map[string]fstree.Usage{}, containers: map[string]containerUsage{}}
	where := d.where(pod)
	for name, dir := range where.Volumes {
		used, err := fstree.Measure(ctx, dir)
		if err != nil {
			return u, fmt.Errorf("volume %s: %w", name, err)
		}
		u.volumes[name] = used
	}
	list, err := d.runtime.ListContainerStats(ctx, &runtimeapi.ContainerStatsFilter{LabelSelector: runtimepod.UIDSelector(pod.UID)})
	if err != nil {
		return u, fmt.Errorf("ask for the usage of the pod's containers: %w", err)
	}
	for _, c := range list {
		name := c.GetAttributes().GetMetadata().GetName()
		used := u.containers[name]
		used.root.Add(fstree.Usage{
			Bytes:  int64(c.GetWritableLayer().GetUsedBytes().GetValue()),
			Inodes: int64(c.GetWritableLayer().GetInodesUsed().GetValue()),
		})
		u.containers[name] = used
	}
	for _, containers := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			name := containers[i].Name
			used := u.containers[name]
			if used.logs, err = fstree.Measure(ctx, filepath.Join(where.Logs, name)); err != nil {
				return u, fmt.Errorf("logs of container %s: %w", name, err)
			}
			u.containers[name] = used
		}
	}
	return u, nil
}

// addTo adds the usage to the pod's statistics.
func (u diskUsage) addTo(entry *statsapi.PodStats, at metav1.Time) {
	var total fstree.Usage
	for name, used := range u.volumes {
		total.Add(used)
		entry.VolumeStats = append(entry.VolumeStats, statsapi.VolumeStats{Name: name, FsStats: *taken(used, at)})
	}
	for name, used := range u.containers {
		total.Add(used.root)
		total.Add(used.logs)
		i := slices.IndexFunc(entry.Containers, func(c statsapi.ContainerStats) bool { return c.Name == name })
		if i < 0 {
			i = len(entry.Containers)
			entry.Containers = append(entry.Containers, statsapi.ContainerStats{Name: name})
		}
		entry.Containers[i].Rootfs, entry.Containers[i].Logs = taken(used.root, at), taken(used.logs, at)
	}
	entry.EphemeralStorage = taken(total, at)
}

func taken(u fstree.Usage, at metav1.Time) *statsapi.FsStats {
	return &statsapi.FsStats{Time: at, UsedBytes: ptr.To(uint64(u.Bytes)), InodesUsed: ptr.To(uint64(u.Inodes))}
}
