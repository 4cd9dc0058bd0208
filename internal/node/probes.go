package node

import (
	v1 "k8s.io/api/core/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	"k8s.io/utils/ptr"

	"errand.dev/errand/internal/node/probe"
	"errand.dev/errand/internal/node/runtimepod"
)

// watchProbes tells the pod's probes what runs. A container whose postStart hook
// isn't over isn't asked yet.
func (w *worker) watchProbes(pod *v1.Pod, rt *runtimepod.Pod) {
	var targets []probe.Target
	for _, c := range rt.Containers {
		spec := findContainer(pod, c.Name)
		if c.State != runtimepod.Running || !probed(spec) || w.ungreeted(c) {
			continue
		}
		target := probe.Target{
			ID:        c.ID,
			Container: spec,
			StartedAt: c.StartedAt,
			Host:      w.n.address(pod, rt),
			Found:     c.StartedAt.Before(w.n.since),
		}
		if s := w.shown(pod, c); s != nil {
			target.Started, target.Ready = ptr.Deref(s.Started, false), s.Ready
		}
		targets = append(targets, target)
	}
	w.probes.Watch(pod, w.ending != nil, targets)
}

func probed(c *v1.Container) bool {
	return c != nil && (c.StartupProbe != nil || c.LivenessProbe != nil || c.ReadinessProbe != nil)
}

// shown returns the status that shows this very run of a container, nil if none
// was ever generated.
func (w *worker) shown(pod *v1.Pod, c *runtimepod.Container) *v1.ContainerStatus {
	previous, id := w.previous(pod), runtimepod.ContainerID(w.n.runtime(), c.ID)
	for _, list := range [][]v1.ContainerStatus{previous.ContainerStatuses, previous.InitContainerStatuses} {
		if i, ok := podutil.GetIndexOfContainerStatus(list, c.Name); ok && list[i].ContainerID == id {
			return &list[i]
		}
	}
	return nil
}
