package podserver

import (
	"context"
	"net/http"

	"k8s.io/component-base/metrics"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	"k8s.io/kubernetes/pkg/kubelet/metrics/collectors"
)

// Metrics are what a node counts, in the two parts that the kubelet serves them in.
type Metrics struct {
	// Node registers what /metrics serves, Probes what /metrics/probes does. Nil
	// registers nothing.
	Node, Probes func(metrics.KubeRegistry) error
}

// handleMetrics serves /metrics, /metrics/probes and /metrics/resource. Nothing
// is measured until somebody asks.
func (s *Server) handleMetrics(mux *http.ServeMux) error {
	for path, register := range map[string]func(metrics.KubeRegistry) error{"/metrics": s.cfg.Metrics.Node, "/metrics/probes": s.cfg.Metrics.Probes} {
		registry := metrics.NewKubeRegistry()
		if register != nil {
			if err := register(registry); err != nil {
				return err
			}
		}
		mux.Handle("GET "+path, metrics.HandlerFor(registry, metrics.HandlerOpts{ErrorHandling: metrics.ContinueOnError}))
	}
	resource := metrics.NewKubeRegistry()
	if err := resource.CustomRegister(collectors.NewResourceMetricsCollector(summaries{s})); err != nil {
		return err
	}
	mux.Handle("GET /metrics/resource", metrics.HandlerFor(resource, metrics.HandlerOpts{ErrorHandling: metrics.ContinueOnError}))
	return nil
}

// summaries is what upstream's collector of /metrics/resource asks.
type summaries struct{ server *Server }

// Get implements stats.SummaryProvider.
func (s summaries) Get(ctx context.Context, _ bool) (*statsapi.Summary, error) {
	return s.server.usage(ctx)
}

// GetCPUAndMemoryStats implements stats.SummaryProvider.
func (s summaries) GetCPUAndMemoryStats(ctx context.Context) (*statsapi.Summary, error) {
	return s.server.usage(ctx)
}
