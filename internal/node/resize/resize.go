// Package resize decides how the resources of pods that run may change (in-place
// resize, KEP-1287): what a pod was given, whether there is room for what it asks
// for, and what is left to be done.
//
// It is pure but for the Ledger, which remembers what the pods of a node were given.
// Nothing is kept on disk: what a pod was given stands in its status.
package resize

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	resourcehelper "k8s.io/component-helpers/resource"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
)

// resizable are the resources that can change in a running pod.
var resizable = []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory}

// Given returns the pod with the resources that its containers, and it as a whole,
// were given, as its status tells. What hasn't run yet gets what its spec says. The
// pod itself is returned if that is all of it.
func Given(pod *v1.Pod) *v1.Pod {
	given := pod
	change := func() {
		if given == pod {
			given = pod.DeepCopy()
		}
	}
	for _, l := range []struct {
		specs    func(*v1.Pod) []v1.Container
		statuses []v1.ContainerStatus
	}{
		{func(p *v1.Pod) []v1.Container { return p.Spec.InitContainers }, pod.Status.InitContainerStatuses},
		{func(p *v1.Pod) []v1.Container { return p.Spec.Containers }, pod.Status.ContainerStatuses},
	} {
		for i, c := range l.specs(pod) {
			j, ok := podutil.GetIndexOfContainerStatus(l.statuses, c.Name)
			if !ok || l.statuses[j].Resources == nil {
				continue
			}
			s := &l.statuses[j]
			was := with(c.Resources, s.AllocatedResources, s.Resources.Limits)
			if !equality.Semantic.DeepEqual(was, c.Resources) {
				change()
				l.specs(given)[i].Resources = was
			}
		}
	}
	return given
}

// with returns r with other amounts of what can be resized.
func with(r v1.ResourceRequirements, requests, limits v1.ResourceList) v1.ResourceRequirements {
	out := *r.DeepCopy()
	out.Requests, out.Limits = replaced(out.Requests, requests), replaced(out.Limits, limits)
	return out
}

func replaced(list, by v1.ResourceList) v1.ResourceList {
	for _, name := range resizable {
		q, ok := by[name]
		if !ok {
			delete(list, name)
			continue
		}
		if list == nil {
			list = v1.ResourceList{}
		}
		list[name] = q.DeepCopy()
	}
	return list
}

// As returns the pod with another's resources: those of its containers, by their
// names, and of it as a whole.
func As(pod, other *v1.Pod) *v1.Pod {
	if Same(pod, other) {
		return pod
	}
	out := pod.DeepCopy()
	out.Spec.Resources = other.Spec.Resources.DeepCopy()
	for _, l := range [][2][]v1.Container{{out.Spec.InitContainers, other.Spec.InitContainers}, {out.Spec.Containers, other.Spec.Containers}} {
		for i := range l[0] {
			for j := range l[1] {
				if l[0][i].Name == l[1][j].Name {
					l[0][i].Resources = *l[1][j].Resources.DeepCopy()
				}
			}
		}
	}
	return out
}

// Same tells whether two versions of a pod have the same resources.
func Same(a, b *v1.Pod) bool {
	return equality.Semantic.DeepEqual(a.Spec.Resources, b.Spec.Resources) &&
		sameContainers(a.Spec.InitContainers, b.Spec.InitContainers) && sameContainers(a.Spec.Containers, b.Spec.Containers)
}

func sameContainers(a, b []v1.Container) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !equality.Semantic.DeepEqual(a[i].Resources, b[i].Resources) {
			return false
		}
	}
	return true
}

// NeedsRestart tells whether the change from one to the other needs a restart of
// the container, as its resizePolicy has it.
func NeedsRestart(c *v1.Container, cpu, memory bool) bool {
	for _, p := range c.ResizePolicy {
		if p.RestartPolicy == v1.RestartContainer && (p.ResourceName == v1.ResourceCPU && cpu || p.ResourceName == v1.ResourceMemory && memory) {
			return true
		}
	}
	return false
}

// Refusal is why a resize has to wait, in the terms of the PodResizePending
// condition.
type Refusal struct {
	Reason  string // Deferred, or Infeasible: never on this node
	Message string
}

// Ledger is what the pods of a node were given. It may be used concurrently.
type Ledger struct {
	allocatable v1.ResourceList

	mu    sync.Mutex
	pods  map[types.UID]amounts
	total amounts
	// deferred are the pods whose resize waits for room, or to be decided on.
	deferred map[types.UID]bool
	complete bool
}

// amounts are requests: CPU in millicores, memory in bytes.
type amounts struct{ cpu, memory int64 }

func of(list v1.ResourceList) amounts {
	return amounts{cpu: list.Cpu().MilliValue(), memory: list.Memory().Value()}
}

func requests(pod *v1.Pod) amounts {
	return of(resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{}))
}

// NewLedger returns the ledger of a node that has so much for pods.
func NewLedger(allocatable v1.ResourceList) *Ledger {
	return &Ledger{allocatable: allocatable, pods: map[types.UID]amounts{}, deferred: map[types.UID]bool{}}
}

// Complete tells that all pods are in the ledger that the node had at the beginning.
func (l *Ledger) Complete() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.complete = true
}

// TooEarly tells that nothing can be decided yet, since not all of the node's pods
// are known. The pod is one of Deferred from then on.
func (l *Ledger) TooEarly(uid types.UID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.complete {
		l.deferred[uid] = true
	}
	return !l.complete
}

// Put notes what a pod was given.
func (l *Ledger) Put(pod *v1.Pod) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.put(pod.UID, requests(pod))
}

func (l *Ledger) put(uid types.UID, a amounts) {
	old := l.pods[uid]
	l.total.cpu += a.cpu - old.cpu
	l.total.memory += a.memory - old.memory
	l.pods[uid] = a
}

// Drop forgets a pod that needs nothing any more.
func (l *Ledger) Drop(uid types.UID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.put(uid, amounts{})
	delete(l.pods, uid)
	delete(l.deferred, uid)
}

// Deferred returns the pods whose resize waits: for room that another may make, or
// for the ledger to be complete.
func (l *Ledger) Deferred() []types.UID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Collect(maps.Keys(l.deferred))
}

// Resize gives the pod what it asks for now if there is room for it, and else
// says why not.
func (l *Ledger) Resize(pod *v1.Pod) *Refusal {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.deferred, pod.UID)
	has, wants := l.pods[pod.UID], requests(pod)
	all := of(l.allocatable)
	for _, r := range []struct {
		name                     v1.ResourceName
		has, wants, total, limit int64
	}{
		{v1.ResourceCPU, has.cpu, wants.cpu, l.total.cpu, all.cpu},
		{v1.ResourceMemory, has.memory, wants.memory, l.total.memory, all.memory},
	} {
		others := r.total - r.has
		switch {
		case r.wants <= r.has: // what is given back needs no room
		case r.wants > r.limit:
			return &Refusal{v1.PodReasonInfeasible, fmt.Sprintf("Node didn't have enough capacity: %s, requested: %d, capacity: %d", r.name, r.wants, r.limit)}
		case r.wants > r.limit-others:
			l.deferred[pod.UID] = true
			return &Refusal{v1.PodReasonDeferred, fmt.Sprintf("Node didn't have enough resource: %s, requested: %d, used: %d, capacity: %d", r.name, r.wants, others, r.limit)}
		}
	}
	l.put(pod.UID, wants)
	return nil
}
