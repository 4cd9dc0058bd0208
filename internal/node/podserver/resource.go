package podserver

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-base/metrics"
	"k8s.io/klog/v2"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

var (
	podLabels       = []string{"pod", "namespace"}
	containerLabels = []string{"container", "pod", "namespace"}
)

// What /metrics/resource tells (KEP-727), by names, labels and meaning. The
// kubelet's own collector isn't used: it brings half of the kubelet along.
var (
	nodeCPUDesc = metrics.NewDesc("node_cpu_usage_seconds_total",
		"CPU time that the whole node has used, in seconds of one core", nil, nil, metrics.STABLE, "")
	nodeMemoryDesc = metrics.NewDesc("node_memory_working_set_bytes",
		"Memory of the whole node that is in use and not easily given back, in bytes", nil, nil, metrics.STABLE, "")
	nodeSwapDesc = metrics.NewDesc("node_swap_usage_bytes",
		"Swap that the whole node uses, in bytes", nil, nil, metrics.ALPHA, "")
	podCPUDesc = metrics.NewDesc("pod_cpu_usage_seconds_total",
		"CPU time that the pod has used, in seconds of one core", podLabels, nil, metrics.STABLE, "")
	podMemoryDesc = metrics.NewDesc("pod_memory_working_set_bytes",
		"Memory of the pod that is in use and not easily given back, in bytes", podLabels, nil, metrics.STABLE, "")
	containerCPUDesc = metrics.NewDesc("container_cpu_usage_seconds_total",
		"CPU time that the container has used, in seconds of one core", containerLabels, nil, metrics.STABLE, "")
	containerMemoryDesc = metrics.NewDesc("container_memory_working_set_bytes",
		"Memory of the container that is in use and not easily given back, in bytes", containerLabels, nil, metrics.STABLE, "")
	containerSwapDesc = metrics.NewDesc("container_swap_usage_bytes",
		"Swap that the container uses, in bytes", containerLabels, nil, metrics.ALPHA, "")
	containerStartDesc = metrics.NewDesc("container_start_time_seconds",
		"When the container was started, in seconds since 1970", containerLabels, nil, metrics.STABLE, "")
	resourceErrorDesc = metrics.NewDesc("resource_scrape_error",
		"1 if something could not be measured, else 0", nil, nil, metrics.STABLE, "")
)

// resourceCollector measures whenever it is asked.
type resourceCollector struct {
	metrics.BaseStableCollector
	server *Server
}

// DescribeWithStability implements metrics.StableCollector.
func (c *resourceCollector) DescribeWithStability(ch chan<- *metrics.Desc) {
	for _, d := range []*metrics.Desc{
		nodeCPUDesc, nodeMemoryDesc, nodeSwapDesc, podCPUDesc, podMemoryDesc,
		containerCPUDesc, containerMemoryDesc, containerSwapDesc, containerStartDesc, resourceErrorDesc,
	} {
		ch <- d
	}
}

// CollectWithStability implements metrics.StableCollector.
func (c *resourceCollector) CollectWithStability(ch chan<- metrics.Metric) {
	ctx := context.Background() // the interface has none
	s, err := c.server.usage(ctx)
	if err != nil {
		klog.FromContext(ctx).Error(err, "The usage of pods can't be measured")
		ch <- metrics.NewLazyConstMetric(resourceErrorDesc, metrics.GaugeValue, 1)
		return
	}
	told := samples(ch)
	told.cpu(nodeCPUDesc, s.Node.CPU)
	told.memory(nodeMemoryDesc, s.Node.Memory)
	told.swap(nodeSwapDesc, s.Node.Swap)
	for i := range s.Pods {
		pod := &s.Pods[i]
		told.cpu(podCPUDesc, pod.CPU, pod.PodRef.Name, pod.PodRef.Namespace)
		told.memory(podMemoryDesc, pod.Memory, pod.PodRef.Name, pod.PodRef.Namespace)
		for j := range pod.Containers {
			one := &pod.Containers[j]
			labels := []string{one.Name, pod.PodRef.Name, pod.PodRef.Namespace}
			told.cpu(containerCPUDesc, one.CPU, labels...)
			told.memory(containerMemoryDesc, one.Memory, labels...)
			told.swap(containerSwapDesc, one.Swap, labels...)
			if started := one.StartTime.UnixNano(); !one.StartTime.IsZero() {
				ch <- metrics.NewLazyConstMetric(containerStartDesc, metrics.GaugeValue, float64(started)/float64(time.Second), labels...)
			}
		}
	}
	ch <- metrics.NewLazyConstMetric(resourceErrorDesc, metrics.GaugeValue, 0)
}

// samples takes what is known of what was measured, each with its time.
type samples chan<- metrics.Metric

func (s samples) cpu(d *metrics.Desc, c *statsapi.CPUStats, labels ...string) {
	if c != nil && c.UsageCoreNanoSeconds != nil {
		s.add(c.Time, metrics.NewLazyConstMetric(d, metrics.CounterValue, float64(*c.UsageCoreNanoSeconds)/float64(time.Second), labels...))
	}
}

func (s samples) memory(d *metrics.Desc, m *statsapi.MemoryStats, labels ...string) {
	if m != nil && m.WorkingSetBytes != nil {
		s.add(m.Time, metrics.NewLazyConstMetric(d, metrics.GaugeValue, float64(*m.WorkingSetBytes), labels...))
	}
}

func (s samples) swap(d *metrics.Desc, w *statsapi.SwapStats, labels ...string) {
	if w != nil && w.SwapUsageBytes != nil {
		s.add(w.Time, metrics.NewLazyConstMetric(d, metrics.GaugeValue, float64(*w.SwapUsageBytes), labels...))
	}
}

func (s samples) add(at metav1.Time, m metrics.Metric) {
	s <- metrics.NewLazyMetricWithTimestamp(at.Time, m)
}
