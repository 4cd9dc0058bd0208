package probe

import (
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/component-base/metrics"
)

// proberMetrics are the kubelet's /metrics/probes.
type proberMetrics struct {
	results  *metrics.CounterVec
	duration *metrics.HistogramVec
}

func newMetrics() *proberMetrics {
	return &proberMetrics{
		results: metrics.NewCounterVec(&metrics.CounterOpts{
			Subsystem: "prober", Name: "probe_total", StabilityLevel: metrics.BETA,
			Help: "Cumulative number of a liveness, readiness or startup probe for a container by result.",
		}, []string{"probe_type", "result", "container", "pod", "namespace", "pod_uid"}),
		duration: metrics.NewHistogramVec(&metrics.HistogramOpts{
			Subsystem: "prober", Name: "probe_duration_seconds", StabilityLevel: metrics.ALPHA,
			Help: "Duration in seconds for a probe response.",
		}, []string{"probe_type", "container", "pod", "namespace"}),
	}
}

// Metrics returns what the probes count, to be registered by who serves it.
func (p *Prober) Metrics() []metrics.Registerable {
	return []metrics.Registerable{p.metrics.results, p.metrics.duration}
}

// resultNames are the values of the label "result".
var resultNames = map[Result]string{Success: "successful", Failure: "failed", Unknown: "unknown"}

func (m *proberMetrics) count(pod *v1.Pod, c *v1.Container, k Kind, r Result, took time.Duration) {
	m.results.With(resultLabels(pod, c, k, r)).Inc()
	if r == Success {
		m.duration.With(durationLabels(pod, c, k)).Observe(took.Seconds())
	}
}

// forget drops all that was counted of a pod, which has ended: else every pod
// that ever had probes would be told of for ever.
func (m *proberMetrics) forget(pod *v1.Pod) {
	for _, list := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			c := &list[i]
			for k := range kinds {
				if k.specOf(c) == nil {
					continue
				}
				for r := range resultNames {
					m.results.Delete(resultLabels(pod, c, k, r))
				}
				m.duration.Delete(durationLabels(pod, c, k))
			}
		}
	}
}

func resultLabels(pod *v1.Pod, c *v1.Container, k Kind, r Result) map[string]string {
	labels := durationLabels(pod, c, k)
	labels["result"], labels["pod_uid"] = resultNames[r], string(pod.UID)
	return labels
}

func durationLabels(pod *v1.Pod, c *v1.Container, k Kind) map[string]string {
	return map[string]string{"probe_type": k.String(), "container": c.Name, "pod": pod.Name, "namespace": pod.Namespace}
}
