package node

import (
	"context"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/component-base/metrics"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
)

// Metrics are what the node counts, under the kubelet's names where it has them.
type Metrics struct {
	podStart      *metrics.Histogram
	podStartSLI   *metrics.Histogram
	podStartTotal *metrics.Histogram
	statusWrite   *metrics.Histogram
	started       *metrics.CounterVec
	startErrors   *metrics.CounterVec
	sandboxes     *metrics.Counter
	sandboxErrors *metrics.Counter
	users         *metrics.Counter
	userErrors    *metrics.Counter
	runtime       runtimeLister
}

// The values of the label "container_type".
const (
	typeContainer     = "container"
	typeInitContainer = "init_container"
)

func newMetrics(runtime runtimeLister) *Metrics {
	histogram := func(name, help string) *metrics.Histogram {
		return metrics.NewHistogram(&metrics.HistogramOpts{
			Subsystem: "kubelet", Name: name, Help: help, StabilityLevel: metrics.ALPHA,
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300},
		})
	}
	opts := func(name, help string) *metrics.CounterOpts {
		return &metrics.CounterOpts{Subsystem: "kubelet", Name: name, Help: help, StabilityLevel: metrics.ALPHA}
	}
	return &Metrics{
		podStart: histogram("pod_start_duration_seconds",
			"Duration in seconds from the node seeing a pod for the first time to the pod starting to run"),
		podStartSLI: histogram("pod_start_sli_duration_seconds",
			"Duration in seconds to start a pod, without the time that its images were pulled: from its creation, which the API knows to the second, to its running"),
		podStartTotal: histogram("pod_start_total_duration_seconds",
			"Duration in seconds to start a pod: from its creation, which the API knows to the second, to its running"),
		statusWrite: histogram("pod_status_sync_duration_seconds",
			"Duration in seconds to sync a pod status update: from the status being known to the API having it"),
		started: metrics.NewCounterVec(opts("started_containers_total",
			"Cumulative number of containers started"), []string{"container_type"}),
		startErrors: metrics.NewCounterVec(opts("started_containers_errors_total",
			"Cumulative number of errors when starting containers, by reason"), []string{"container_type", "code"}),
		sandboxes: metrics.NewCounter(opts("started_pods_total",
			"Cumulative number of pods started")),
		sandboxErrors: metrics.NewCounter(opts("started_pods_errors_total",
			"Cumulative number of errors when making the sandboxes of pods")),
		users: metrics.NewCounter(opts("started_user_namespaced_pods_total",
			"Cumulative number of sandboxes begun for pods with a user namespace of their own")),
		userErrors: metrics.NewCounter(opts("started_user_namespaced_pods_errors_total",
			"Cumulative number of errors when making the sandboxes and containers of such pods")),
		runtime: runtime,
	}
}

// countUserNamespace counts with a counter if the pod has a user namespace.
func (m *Metrics) countUserNamespace(pod *v1.Pod, counter *metrics.Counter) {
	if wantsUserNamespace(pod) {
		counter.Inc()
	}
}

// Registry is where metrics are registered: a metrics.KubeRegistry is one.
type Registry interface {
	Register(metrics.Registerable) error
	CustomRegister(metrics.StableCollector) error
}

// Register registers all metrics. It may be called for several registries.
func (m *Metrics) Register(registry Registry) error {
	for _, c := range []metrics.Registerable{
		m.podStart, m.podStartSLI, m.podStartTotal, m.statusWrite, m.started, m.startErrors, m.sandboxes, m.sandboxErrors,
		m.users, m.userErrors,
	} {
		if err := registry.Register(c); err != nil {
			return err
		}
	}
	return registry.CustomRegister(&runningCollector{runtime: m.runtime}) // one serves one registry
}

// podStarted counts a pod that runs, seen first at seen and running now. pulling
// is how long images were pulled for it.
func (m *Metrics) podStarted(pod *v1.Pod, seen, now time.Time, pulling time.Duration) {
	total := max(now.Sub(pod.CreationTimestamp.Time), 0)
	m.podStart.Observe(now.Sub(seen).Seconds())
	m.podStartTotal.Observe(total.Seconds())
	m.podStartSLI.Observe(max(total-pulling, 0).Seconds())
}

// containerType tells a pod's container from its init containers.
func containerType(pod *v1.Pod, name string) string {
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == name {
			return typeInitContainer
		}
	}
	return typeContainer
}

// runtimeLister is asked what runs.
type runtimeLister interface {
	ListPodSandbox(context.Context, *runtimeapi.PodSandboxFilter) ([]*runtimeapi.PodSandbox, error)
	ListContainers(context.Context, *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error)
}

var (
	runningPodsDesc = metrics.NewDesc("kubelet_running_pods",
		"Number of pods that have a running pod sandbox", nil, nil, metrics.ALPHA, "")
	runningContainersDesc = metrics.NewDesc("kubelet_running_containers",
		"Number of containers by state", []string{"container_state"}, nil, metrics.ALPHA, "")
)

// runningCollector asks the runtime what runs whenever somebody asks it.
type runningCollector struct {
	metrics.BaseStableCollector
	runtime runtimeLister
}

// DescribeWithStability implements metrics.StableCollector.
func (c *runningCollector) DescribeWithStability(ch chan<- *metrics.Desc) {
	ch <- runningPodsDesc
	ch <- runningContainersDesc
}

var stateNames = map[runtimeapi.ContainerState]string{
	runtimeapi.ContainerState_CONTAINER_CREATED: "created",
	runtimeapi.ContainerState_CONTAINER_RUNNING: "running",
	runtimeapi.ContainerState_CONTAINER_EXITED:  "exited",
	runtimeapi.ContainerState_CONTAINER_UNKNOWN: "unknown",
}

// CollectWithStability implements metrics.StableCollector.
func (c *runningCollector) CollectWithStability(ch chan<- metrics.Metric) {
	ctx := context.Background()
	ready := &runtimeapi.PodSandboxFilter{State: &runtimeapi.PodSandboxStateValue{State: runtimeapi.PodSandboxState_SANDBOX_READY}}
	sandboxes, err := c.runtime.ListPodSandbox(ctx, ready)
	if err != nil {
		klog.Background().Error(err, "What runs can't be counted")
		return
	}
	containers, err := c.runtime.ListContainers(ctx, nil)
	if err != nil {
		klog.Background().Error(err, "What runs can't be counted")
		return
	}
	count := map[string]int{}
	for _, one := range containers {
		count[stateNames[one.GetState()]]++
	}
	ch <- metrics.NewLazyConstMetric(runningPodsDesc, metrics.GaugeValue, float64(len(sandboxes)))
	for state, n := range count {
		ch <- metrics.NewLazyConstMetric(runningContainersDesc, metrics.GaugeValue, float64(n), state)
	}
}
