// Package metrics makes the CRI's metrics (ListMetricDescriptors and
// ListPodSandboxMetrics, KEP-2371) of what was measured: those that cAdvisor
// made, under its names and labels, so that dashboards go on working. It
// measures nothing itself.
//
// The CRI's values are whole numbers: of times they are the seconds that have
// passed in full.
package metrics

import (
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"errand.dev/errand/internal/cri/cgroups"
	"errand.dev/errand/internal/cri/network"
)

// Subject is what metrics are about, as cAdvisor labels it.
type Subject struct {
	// Container is its name in the pod, "POD" for the pod itself.
	Container string
	// ID is its cgroup, Name its ID.
	ID, Name string
	Image    string
	// Pod and Namespace name the pod.
	Namespace, Pod string
}

// subjectKeys are the labels that every metric has, in the order of values.
func subjectKeys() []string { return []string{"container", "id", "image", "name", "namespace", "pod"} }

func (s Subject) values() []string {
	return []string{s.Container, s.ID, s.Image, s.Name, s.Namespace, s.Pod}
}

// Container is what was measured of a container that runs.
type Container struct {
	Subject
	Stats     *cgroups.Stats
	Detail    *cgroups.Detail
	Resources *runtimeapi.LinuxContainerResources
	StartedAt time.Time
	At        time.Time
	Disk      Disk
	// Of all its processes together.
	Processes, OpenFiles, Sockets uint64
}

// Disk is what a container has written to its root, and the size of the file
// system that this is on. In bytes and inodes.
type Disk struct {
	Used, Size, Inodes, FreeInodes uint64
}

// Pod is what was measured of a pod's network; Network is nil for one in the
// host's.
type Pod struct {
	Subject
	Network *network.Usage
}

// sample is a value with its labels beyond the subject's.
type sample struct {
	labels []string
	value  uint64
}

func value(n uint64) []sample { return []sample{{value: n}} }

// metric is one that there is. read returns nothing where it can't be told.
type metric[T any] struct {
	name, help string
	kind       runtimeapi.MetricType
	labels     []string
	read       func(T) []sample
}

func (m metric[T]) descriptor() *runtimeapi.MetricDescriptor {
	return &runtimeapi.MetricDescriptor{Name: m.name, Help: m.help, LabelKeys: append(subjectKeys(), m.labels...)}
}

// Descriptors are those of all metrics.
func Descriptors() []*runtimeapi.MetricDescriptor {
	var out []*runtimeapi.MetricDescriptor
	for _, m := range containerMetrics() {
		out = append(out, m.descriptor())
	}
	for _, m := range podMetrics() {
		out = append(out, m.descriptor())
	}
	return out
}

// Of makes a container's metrics.
func (c Container) Of() []*runtimeapi.Metric { return apply(containerMetrics(), c.Subject, c) }

// Of makes a pod's metrics.
func (p Pod) Of() []*runtimeapi.Metric {
	if p.Network == nil {
		return nil
	}
	return apply(podMetrics(), p.Subject, *p.Network)
}

func apply[T any](all []metric[T], subject Subject, of T) []*runtimeapi.Metric {
	var out []*runtimeapi.Metric
	for _, m := range all {
		for _, s := range m.read(of) {
			out = append(out, &runtimeapi.Metric{
				Name: m.name, MetricType: m.kind, LabelValues: append(subject.values(), s.labels...), Value: &runtimeapi.UInt64Value{Value: s.value},
			})
		}
	}
	return out
}
