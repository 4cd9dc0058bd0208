package podserver

import (
	"net/http"

	"k8s.io/component-base/metrics"
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
	if err := resource.CustomRegister(&resourceCollector{server: s}); err != nil {
		return err
	}
	mux.Handle("GET /metrics/resource", metrics.HandlerFor(resource, metrics.HandlerOpts{ErrorHandling: metrics.ContinueOnError}))
	return nil
}
