package crispec

import (
	"maps"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	v1helper "k8s.io/kubernetes/pkg/apis/core/v1/helper"
	"k8s.io/kubernetes/pkg/apis/core/v1/helper/qos"
	"k8s.io/kubernetes/pkg/apis/scheduling"
)

// The kernel's and the kubelet's numbers for CPU.
const (
	quotaPeriod   = 100_000 // µs
	minQuota      = 1_000   // µs
	minShares     = 2
	maxShares     = 262_144
	sharesPerCore = 1024
)

// oom_score_adj of guaranteed and best-effort containers.
const (
	oomGuaranteed = -997
	oomBestEffort = 1000
)

// Resources returns the limits of a container. What it doesn't set itself the
// pod's own limits do (KEP-2837).
func (n Node) Resources(pod *v1.Pod, c *v1.Container) *runtimeapi.LinuxContainerResources {
	limits := c.Resources.Limits
	if resourcehelper.IsPodLevelResourcesSet(pod) {
		limits = limits.DeepCopy()
		if limits == nil {
			limits = v1.ResourceList{}
		}
		for name, q := range pod.Spec.Resources.Limits {
			if own := limits[name]; own.IsZero() {
				limits[name] = q
			}
		}
	}
	r := linuxResources(c.Resources.Requests, limits)
	r.OomScoreAdj = n.oomScoreAdj(pod, c)
	r.HugepageLimits = n.hugepages(limits)
	if n.CgroupV2 {
		// A container that lost one of its processes would go on half dead.
		r.Unified = map[string]string{"memory.oom.group": "1"}
	}
	if n.CgroupV2 && n.LimitsSwap {
		// Whatever their memory limit is, containers have no swap: the kubelet's
		// NoSwap (KEP-2400).
		r.Unified["memory.swap.max"] = "0"
	}
	return r
}

// podResources are the limits of the pod's cgroup, its overhead left out.
func (n Node) podResources(pod *v1.Pod) *runtimeapi.LinuxContainerResources {
	opts := resourcehelper.PodResourcesOptions{ExcludeOverhead: true}
	requests := resourcehelper.PodRequests(pod, opts)
	r := linuxResources(requests, PodLimits(pod, opts))
	r.HugepageLimits = n.hugepages(requests) // of which limits are no more
	return r
}

// overhead is what the pod's cgroup may use beside its containers; nil for nothing.
func overhead(pod *v1.Pod) *runtimeapi.LinuxContainerResources {
	if len(pod.Spec.Overhead) == 0 {
		return nil // the least of shares would be more than none
	}
	return linuxResources(pod.Spec.Overhead, pod.Spec.Overhead)
}

// PodLimits returns what the pod as a whole may use of CPU and memory. A resource
// has a limit only if the pod sets one, or each of its containers does: what the
// others may use is no bound on one that may use everything.
func PodLimits(pod *v1.Pod, opts resourcehelper.PodResourcesOptions) v1.ResourceList {
	limits := v1.ResourceList{}
	for name, q := range resourcehelper.PodLimits(pod, opts) {
		if (name == v1.ResourceCPU || name == v1.ResourceMemory) && limited(pod, name) {
			limits[name] = q
		}
	}
	return limits
}

func limited(pod *v1.Pod, name v1.ResourceName) bool {
	sets := func(limits v1.ResourceList) bool {
		q := limits[name]
		return !q.IsZero()
	}
	if r := pod.Spec.Resources; r != nil && sets(r.Limits) {
		return true
	}
	return !slices.ContainsFunc(slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers), func(c v1.Container) bool {
		return !sets(c.Resources.Limits)
	})
}

func linuxResources(requests, limits v1.ResourceList) *runtimeapi.LinuxContainerResources {
	r := &runtimeapi.LinuxContainerResources{
		CpuPeriod:          quotaPeriod,
		CpuQuota:           quota(limits.Cpu().MilliValue()),
		MemoryLimitInBytes: limits.Memory().Value(),
	}
	cpu, ok := requests[v1.ResourceCPU]
	if !ok {
		cpu = limits[v1.ResourceCPU]
	}
	r.CpuShares = shares(cpu.MilliValue())
	return r
}

func shares(milliCPU int64) int64 {
	return min(max(milliCPU*sharesPerCore/1000, minShares), maxShares)
}

// quota returns µs per period; 0 is no limit.
func quota(milliCPU int64) int64 {
	if milliCPU == 0 {
		return 0
	}
	return max(milliCPU*quotaPeriod/1000, minQuota)
}

// hugepages limits huge pages: to none, of a size of which the node has some and
// limits speak not of. Who asked for them has them to themselves.
func (n Node) hugepages(limits v1.ResourceList) []*runtimeapi.HugepageLimit {
	quantities := v1.ResourceList{}
	for name, has := range n.Allocatable {
		if v1helper.IsHugePageResourceName(name) && !has.IsZero() {
			quantities[name] = resource.Quantity{}
		}
	}
	for name, q := range limits {
		if v1helper.IsHugePageResourceName(name) {
			quantities[name] = q
		}
	}
	var all []*runtimeapi.HugepageLimit
	for _, name := range slices.Sorted(maps.Keys(quantities)) {
		q := quantities[name]
		size, err := v1helper.HugePageSizeFromResourceName(name)
		if err != nil {
			continue // validated by the API
		}
		if unit, err := v1helper.HugePageUnitSizeFromByteSize(size.Value()); err == nil {
			all = append(all, &runtimeapi.HugepageLimit{PageSize: unit, Limit: uint64(q.Value())})
		}
	}
	return all
}

// oomScoreAdj makes the kernel prefer, when memory runs out, best-effort pods
// over those that use more than they asked for, and these over guaranteed ones.
func (n Node) oomScoreAdj(pod *v1.Pod, c *v1.Container) int64 {
	if pod.Spec.PriorityClassName == scheduling.SystemNodeCritical {
		return oomGuaranteed
	}
	switch qos.GetPodQOS(pod) {
	case v1.PodQOSGuaranteed:
		return oomGuaranteed
	case v1.PodQOSBestEffort:
		return oomBestEffort
	}
	if n.MemoryCapacity <= 0 {
		return oomBestEffort - 1
	}
	request := c.Resources.Requests.Memory().Value()
	if podutil.IsRestartableInitContainer(c) {
		// A sidecar must not die before what it serves.
		request = max(request, smallestRequest(pod))
	}
	request += podShare(pod)
	adj := oomBestEffort - oomBestEffort*request/n.MemoryCapacity
	return min(max(adj, oomBestEffort+oomGuaranteed), oomBestEffort-1)
}

func smallestRequest(pod *v1.Pod) int64 {
	var smallest *resource.Quantity
	for i := range pod.Spec.Containers {
		if q := pod.Spec.Containers[i].Resources.Requests.Memory(); smallest == nil || q.Cmp(*smallest) < 0 {
			smallest = q
		}
	}
	if smallest == nil {
		return 0
	}
	return smallest.Value()
}

// podShare is each container's part of what the pod asked for as a whole beyond
// what its containers did.
func podShare(pod *v1.Pod) int64 {
	if !resourcehelper.IsPodLevelRequestsSet(pod) {
		return 0
	}
	rest := pod.Spec.Resources.Requests.Memory().Value()
	asked := resourcehelper.AggregateContainerRequests(pod, resourcehelper.PodResourcesOptions{})
	rest -= asked.Memory().Value()
	n := int64(len(pod.Spec.Containers))
	for i := range pod.Spec.InitContainers {
		if podutil.IsRestartableInitContainer(&pod.Spec.InitContainers[i]) {
			n++
		}
	}
	if rest <= 0 || n == 0 {
		return 0
	}
	return rest / n
}
