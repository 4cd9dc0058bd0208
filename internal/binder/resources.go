package binder

import (
	"maps"
	"slices"

	v1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"
)

// resources is an amount of everything that a node has and pods request: CPU in
// millicores, memory and ephemeral storage in bytes, the rest (huge pages,
// extended resources) in its own units.
type resources struct {
	cpu, memory, storage int64
	scalar               map[v1.ResourceName]int64
}

func newResources(list v1.ResourceList) resources {
	var r resources
	for name, q := range list {
		switch name {
		case v1.ResourceCPU:
			r.cpu = q.MilliValue()
		case v1.ResourceMemory:
			r.memory = q.Value()
		case v1.ResourceEphemeralStorage:
			r.storage = q.Value()
		case v1.ResourcePods:
		default:
			if r.scalar == nil {
				r.scalar = map[v1.ResourceName]int64{}
			}
			r.scalar[name] = q.Value()
		}
	}
	return r
}

// plus is r with sign×o added. r is not changed.
func (r resources) plus(o resources, sign int64) resources {
	r.cpu += sign * o.cpu
	r.memory += sign * o.memory
	r.storage += sign * o.storage
	if len(o.scalar) > 0 {
		r.scalar = maps.Clone(r.scalar)
		if r.scalar == nil {
			r.scalar = map[v1.ResourceName]int64{}
		}
		for name, amount := range o.scalar {
			r.scalar[name] += sign * amount
		}
	}
	return r
}

// requestsOf is what the scheduler has to find room for: containers, init
// containers, sidecars, overhead and pod-level requests (KEP-2837), with what an
// in-place resize has already got (KEP-1287).
func requestsOf(pod *v1.Pod) resources {
	return newResources(resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{UseStatusResources: true}))
}

// scored is the requests as scoring sees them: with upstream's guess for what a
// pod doesn't request, so that such pods spread too.
func (r resources) scored() resources {
	if r.cpu == 0 {
		r.cpu = 100
	}
	if r.memory == 0 {
		r.memory = 200 << 20
	}
	return resources{cpu: r.cpu, memory: r.memory}
}

// sameRequests tells, at less cost than requestsOf, that two versions of a pod
// have the same requests. It may say no when they do.
func sameRequests(a, b *v1.Pod) bool {
	return sameQuantities(a.Spec.Overhead, b.Spec.Overhead) &&
		samePodLevel(a.Spec.Resources, b.Spec.Resources) &&
		samePodLevel(a.Status.Resources, b.Status.Resources) &&
		slices.EqualFunc(a.Spec.Containers, b.Spec.Containers, sameContainer) &&
		slices.EqualFunc(a.Spec.InitContainers, b.Spec.InitContainers, sameContainer) &&
		slices.EqualFunc(a.Status.ContainerStatuses, b.Status.ContainerStatuses, sameStatus) &&
		slices.EqualFunc(a.Status.InitContainerStatuses, b.Status.InitContainerStatuses, sameStatus)
}

func samePodLevel(a, b *v1.ResourceRequirements) bool {
	if a == nil || b == nil {
		return a == b
	}
	return sameQuantities(a.Requests, b.Requests)
}

func sameContainer(a, b v1.Container) bool {
	return sameQuantities(a.Resources.Requests, b.Resources.Requests)
}

func sameStatus(a, b v1.ContainerStatus) bool {
	return sameQuantities(a.AllocatedResources, b.AllocatedResources) && samePodLevel(a.Resources, b.Resources)
}

func sameQuantities(a, b v1.ResourceList) bool {
	if len(a) != len(b) {
		return false
	}
	for name, q := range a {
		if other, ok := b[name]; !ok || q.Cmp(other) != 0 {
			return false
		}
	}
	return true
}
