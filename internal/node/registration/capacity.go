package registration

import (
	"strconv"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	v1helper "k8s.io/kubernetes/pkg/apis/core/v1/helper"
)

const (
	mebi = 1 << 20
	gibi = 1 << 30

	// minFreeMemory is what must be available before pods are kept away: the
	// kubelet's hard eviction threshold memory.available.
	minFreeMemory = 100 * mebi
	// ownMemory is what errand itself and the shim need.
	ownMemory = 200 * mebi
)

// DefaultReserved is what is kept from pods unless configured:
//
//   - memory: what errand needs (200 MiB) and what must stay available (100 MiB),
//     but never more than a tenth of the machine's;
//   - ephemeral storage: what must stay free of the data directory's file system
//     (see minFreeDisk);
//   - CPU: nothing. It is shared by weight, not used up, and a Job that requests
//     all cores of a laptop or a CI runner shall find them.
func DefaultReserved(f Facts) v1.ResourceList {
	return v1.ResourceList{
		v1.ResourceMemory:           *bytesOf(min(ownMemory+minFreeMemory, f.Memory/10)),
		v1.ResourceEphemeralStorage: *bytesOf(minFreeDisk(f.Disk)),
	}
}

// minFreeDisk is how much of a disk must be free before pods are kept away: a
// tenth, as the kubelet's nodefs.available, but not more than 10 GiB, since a
// laptop's terabyte that is 95 % full still has room.
func minFreeDisk(total int64) int64 { return min(total/10, 10*gibi) }

func bytesOf(n int64) *resource.Quantity { return resource.NewQuantity(n, resource.BinarySI) }

// capacity is all that the machine has.
func capacity(f Facts, maxPods int64) v1.ResourceList {
	list := v1.ResourceList{
		v1.ResourceCPU:              *resource.NewMilliQuantity(f.MilliCPU, resource.DecimalSI),
		v1.ResourceMemory:           *bytesOf(f.Memory),
		v1.ResourceEphemeralStorage: *bytesOf(f.Disk),
		v1.ResourcePods:             *resource.NewQuantity(maxPods, resource.DecimalSI),
	}
	for size, count := range f.HugePages {
		list[hugePageResource(size)] = *bytesOf(size * count)
	}
	return list
}

// extended are the resources of the list that the machine has nothing to do with:
// an administrator has given them to the Node, by a patch of its status, to count
// devices, licences or anything else that pods take up.
func extended(list v1.ResourceList) v1.ResourceList {
	others := v1.ResourceList{}
	for name, amount := range list {
		if v1helper.IsExtendedResourceName(name) {
			others[name] = amount
		}
	}
	return others
}

func hugePageResource(bytes int64) v1.ResourceName {
	return v1.ResourceName(v1.ResourceHugePagesPrefix + bytesOf(bytes).String())
}

// allocatable is capacity without what is reserved; memory that stands in huge
// pages isn't memory any more.
func allocatable(capacity, reserved v1.ResourceList) v1.ResourceList {
	list := capacity.DeepCopy()
	subtract := func(name v1.ResourceName, amount resource.Quantity) {
		q, ok := list[name]
		if !ok {
			return
		}
		q.Sub(amount)
		if q.Sign() < 0 {
			q.Set(0)
		}
		list[name] = q
	}
	for name, amount := range reserved {
		subtract(name, amount)
	}
	for name, amount := range capacity {
		if len(name) > len(v1.ResourceHugePagesPrefix) && name[:len(v1.ResourceHugePagesPrefix)] == v1.ResourceHugePagesPrefix {
			subtract(v1.ResourceMemory, amount)
		}
	}
	return list
}

// parseCPUMax reads a cgroup v2 cpu.max ("200000 100000") or the two values of
// v1 so joined, in millicores; 0 means no limit.
func parseCPUMax(quota, period string) int64 {
	q, err := strconv.ParseInt(quota, 10, 64)
	if err != nil || q <= 0 {
		return 0
	}
	p, err := strconv.ParseInt(period, 10, 64)
	if err != nil || p <= 0 {
		return 0
	}
	return q * 1000 / p
}
