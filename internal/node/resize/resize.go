// Package resize decides what of a node's resources its pods are given, at first and
// when they ask for others while they run (in-place resize, KEP-1287).
//
// It is pure but for the Ledger, which remembers what the pods of a node were given.
// Nothing is kept on disk: what a pod was given stands in its status.
package resize

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	resourcehelper "k8s.io/component-helpers/resource"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	"k8s.io/kubernetes/pkg/apis/core/v1/helper/qos"
	"k8s.io/kubernetes/pkg/kubelet/lifecycle"
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

// Refusal is why a pod isn't given what it asks for: in the terms of the
// PodResizePending condition, or of a pod's status if it isn't run at all.
type Refusal struct {
	Reason  string // Deferred, Infeasible: never on this node; OutOf… of a pod that is new
	Message string
}

// Ledger is what the pods of a node were given. It may be used concurrently.
type Ledger struct {
	allocatable v1.ResourceList

	mu    sync.Mutex
	pods  map[types.UID]amounts
	total amounts
	// deferred are the resizes that wait for room.
	deferred map[types.UID]ask
	asked    int // how many resizes were deferred so far
	// early are the pods whose resizes wait for the ledger to be complete.
	early    map[types.UID]bool
	complete bool
}

// ask is a resize that waits, and its place among others: by the pod's priority, its
// quality of service, and the time that it has waited.
type ask struct {
	wants    amounts
	priority int32
	class    int
	number   int
}

func (a ask) before(b ask) bool {
	return cmp.Or(cmp.Compare(b.priority, a.priority), cmp.Compare(a.class, b.class), cmp.Compare(a.number, b.number)) < 0
}

var classes = map[v1.PodQOSClass]int{v1.PodQOSGuaranteed: 0, v1.PodQOSBurstable: 1, v1.PodQOSBestEffort: 2}

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
	return &Ledger{allocatable: allocatable, pods: map[types.UID]amounts{}, deferred: map[types.UID]ask{}, early: map[types.UID]bool{}}
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
	if l.complete {
		delete(l.early, uid)
		return false
	}
	l.early[uid] = true
	return true
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

// Admit notes what a pod that hasn't run is given if there is room for it, and else
// says why not.
func (l *Ledger) Admit(pod *v1.Pod) *Refusal {
	l.mu.Lock()
	defer l.mu.Unlock()
	if short := l.short(amounts{}, requests(pod)); short != nil {
		return &Refusal{lifecycle.InsufficientResourcePrefix + string(short.name), short.message()}
	}
	l.put(pod.UID, requests(pod))
	return nil
}

// Drop forgets a pod that needs nothing any more.
func (l *Ledger) Drop(uid types.UID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.put(uid, amounts{})
	delete(l.pods, uid)
	delete(l.deferred, uid)
	delete(l.early, uid)
}

// Withdraw tells that the pod asks for nothing else than it was given any more.
func (l *Ledger) Withdraw(uid types.UID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.deferred, uid)
	delete(l.early, uid)
}

// Deferred returns the pods whose resize waits: for room that another may make, or
// for the ledger to be complete.
func (l *Ledger) Deferred() []types.UID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.AppendSeq(slices.Collect(maps.Keys(l.deferred)), maps.Keys(l.early))
}

// Resize gives the pod what it asks for now if there is room for it, and else
// says why not. Of those that wait, who comes first is served first. A pod that was
// dropped gets nothing, and needs nothing.
func (l *Ledger) Resize(pod *v1.Pod) *Refusal {
	l.mu.Lock()
	defer l.mu.Unlock()
	waited, again := l.deferred[pod.UID]
	delete(l.deferred, pod.UID)
	has, known := l.pods[pod.UID]
	if !known {
		return nil
	}
	mine := ask{wants: requests(pod), class: classes[qos.GetPodQOS(pod)], number: waited.number}
	if pod.Spec.Priority != nil {
		mine.priority = *pod.Spec.Priority
	}
	if !again {
		l.asked++
		mine.number = l.asked
	}
	short := l.short(has, mine.wants)
	switch {
	case short == nil && !l.othersFirst(mine):
		l.put(pod.UID, mine.wants)
		return nil
	case short == nil:
		l.deferred[pod.UID] = mine
		return &Refusal{v1.PodReasonDeferred, "The resize of a pod that comes first is under way"}
	case short.wants > short.limit:
		return &Refusal{v1.PodReasonInfeasible, fmt.Sprintf("Node didn't have enough capacity: %s, requested: %d, capacity: %d", short.name, short.wants, short.limit)}
	}
	l.deferred[pod.UID] = mine
	return &Refusal{v1.PodReasonDeferred, short.message()}
}

// othersFirst tells whether there is room now for a resize that comes before this one.
func (l *Ledger) othersFirst(mine ask) bool {
	for uid, other := range l.deferred {
		if other.before(mine) && l.short(l.pods[uid], other.wants) == nil {
			return true
		}
	}
	return false
}

// shortage is a resource that there isn't enough of.
type shortage struct {
	name                 v1.ResourceName
	wants, others, limit int64
}

func (s *shortage) message() string {
	return fmt.Sprintf("Node didn't have enough resource: %s, requested: %d, used: %d, capacity: %d", s.name, s.wants, s.others, s.limit)
}

// short returns what there isn't enough of for a pod that has so much and wants so
// much, nil if there is room. What is unchanged or given back needs none.
func (l *Ledger) short(has, wants amounts) *shortage {
	all := of(l.allocatable)
	for _, r := range []struct {
		has int64
		s   shortage
	}{
		{has.cpu, shortage{v1.ResourceCPU, wants.cpu, l.total.cpu - has.cpu, all.cpu}},
		{has.memory, shortage{v1.ResourceMemory, wants.memory, l.total.memory - has.memory, all.memory}},
	} {
		if r.s.wants > r.has && r.s.wants > r.s.limit-r.s.others {
			return &r.s
		}
	}
	return nil
}
