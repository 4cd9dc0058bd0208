package server

import (
	"context"
	"fmt"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/component-base/metrics/legacyregistry"

	"errand.dev/errand/internal/jobs"
)

// startEngine starts the Job engine.
func (s *serve) startEngine(ctx context.Context) error {
	client, err := s.clientAs(engineUser)
	if err != nil {
		return err
	}
	engine, err := jobs.New(jobs.Config{
		Client:               client,
		Jobs:                 s.api.Informers().Batch().V1().Jobs(),
		Pods:                 s.api.Informers().Core().V1().Pods(),
		PodFailureBackoff:    s.options.PodFailureBackoff,
		MaxPodFailureBackoff: s.options.MaxPodFailureBackoff,
		Traces:               s.traces,
		RegisterMetrics:      legacyregistry.Register,
	})
	if err != nil {
		return fmt.Errorf("job engine: %w", err)
	}
	s.group.Start(ctx, "job engine", engine.Run)
	return nil
}

// recorder makes a recorder of events whose source is component, on host where
// that isn't empty; client writes them.
func (s *serve) recorder(ctx context.Context, client kubernetes.Interface, component, host string) record.EventRecorder {
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	broadcaster.StartRecordingToSink(&corev1client.EventSinkImpl{Interface: client.CoreV1().Events("")})
	s.broadcasters = append(s.broadcasters, broadcaster)
	return broadcaster.NewRecorder(scheme.Scheme, v1.EventSource{Component: component, Host: host})
}
