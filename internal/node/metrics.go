package node

import (
	"k8s.io/component-base/metrics"
)

// Metrics are what the node counts, under the kubelet's names where it has them.
type Metrics struct {
	podStart      *metrics.Histogram
	statusWrite   *metrics.Histogram
	started       *metrics.Counter
	startErrors   *metrics.CounterVec
	sandboxErrors *metrics.Counter
}

func newMetrics() *Metrics {
	buckets := []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}
	return &Metrics{
		podStart: metrics.NewHistogram(&metrics.HistogramOpts{
			Name:    "kubelet_pod_start_duration_seconds",
			Help:    "Duration in seconds from the node seeing a pod for the first time to the pod starting to run",
			Buckets: buckets, StabilityLevel: metrics.ALPHA,
		}),
		statusWrite: metrics.NewHistogram(&metrics.HistogramOpts{
			Name:    "kubelet_pod_status_sync_duration_seconds",
			Help:    "Duration in seconds to sync a pod status update: from the status being known to the API having it",
			Buckets: buckets, StabilityLevel: metrics.ALPHA,
		}),
		started: metrics.NewCounter(&metrics.CounterOpts{
			Name: "kubelet_started_containers_total",
			Help: "Cumulative number of containers started", StabilityLevel: metrics.ALPHA,
		}),
		startErrors: metrics.NewCounterVec(&metrics.CounterOpts{
			Name: "kubelet_started_containers_errors_total",
			Help: "Cumulative number of errors when starting containers, by reason", StabilityLevel: metrics.ALPHA,
		}, []string{"code"}),
		sandboxErrors: metrics.NewCounter(&metrics.CounterOpts{
			Name: "kubelet_started_pods_errors_total",
			Help: "Cumulative number of errors when making the sandboxes of pods", StabilityLevel: metrics.ALPHA,
		}),
	}
}

// Register registers all metrics.
func (m *Metrics) Register(registry metrics.KubeRegistry) error {
	for _, c := range []metrics.Registerable{m.podStart, m.statusWrite, m.started, m.startErrors, m.sandboxErrors} {
		if err := registry.Register(c); err != nil {
			return err
		}
	}
	return nil
}
