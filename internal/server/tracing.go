package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
	tracingapi "k8s.io/component-base/tracing/api/v1"

	"errand.dev/errand/internal/control"
	"errand.dev/errand/internal/instance"
	"errand.dev/errand/internal/podtrace"
	"errand.dev/errand/internal/podtrace/otlp"
	"errand.dev/errand/internal/version"
)

func (o *Options) validateTracing() error {
	t := o.Tracing
	if rate := t.SamplingRatePerMillion; rate < 0 || rate > otlp.FullSamplingRate {
		return fmt.Errorf("--tracing-sampling-rate-per-million %d: must be 0 to %d", rate, otlp.FullSamplingRate)
	}
	if t.Endpoint == "" {
		return nil
	}
	if !o.Node {
		return errors.New("--tracing-endpoint needs --node: the traces are of the pods that run here")
	}
	wrong := tracingapi.ValidateTracingConfiguration(&tracingapi.TracingConfiguration{
		Endpoint: &t.Endpoint, SamplingRatePerMillion: &t.SamplingRatePerMillion,
	}, nil, field.NewPath("tracing"))
	why := ""
	if len(wrong) > 0 {
		why = wrong[0].Detail
	} else if scheme, _, _ := strings.Cut(t.Endpoint, ":"); scheme != "unix" && scheme != "dns" {
		// gRPC would take 443 for a port that is missing, where hardly any collector listens.
		if _, port, err := net.SplitHostPort(t.Endpoint); err != nil || port == "" {
			why = "the port is missing"
		}
	}
	if why != "" {
		return fmt.Errorf("--tracing-endpoint %q: %s; it is a collector's host:port for OTLP over gRPC, such as localhost:4317", t.Endpoint, why)
	}
	return nil
}

// startTracing begins the record of where pods' time goes, and sends it where the
// options say. Without a node there are no pods to tell of.
func (s *serve) startTracing(ctx context.Context) error {
	if !s.options.Node {
		return nil
	}
	if s.options.Tracing.Endpoint == "" {
		s.traces = podtrace.New(nil, nil)
		return nil
	}
	exporter, err := otlp.New(ctx, otlp.Config{
		Endpoint:               s.options.Tracing.Endpoint,
		SamplingRatePerMillion: s.options.Tracing.SamplingRatePerMillion,
		NodeName:               s.nodeName.current,
		Version:                version.Get().Version,
	})
	if err != nil {
		return err
	}
	s.traces = podtrace.New(nil, exporter)
	s.group.Start(ctx, "traces", exporter.Run)
	return nil
}

// traceCommand is the record as errand's own commands ask for it.
type traceCommand struct{ traces *podtrace.Recorder }

var _ control.Traces = traceCommand{}

// Trace implements control.Traces.
func (t traceCommand) Trace(_ context.Context, namespace, name string) (*podtrace.Trace, error) {
	found, ok := t.traces.Find(namespace, name)
	if !ok {
		return nil, fmt.Errorf("%w: %s/%s", control.ErrNoTrace, namespace, name)
	}
	return found, nil
}

// TracePod asks the errand serve that runs on the data directory where the time of
// a pod went.
func TracePod(ctx context.Context, o Options, namespace, name string) (*podtrace.Trace, error) {
	names, err := instance.For(o.DataDir)
	if err != nil {
		return nil, err
	}
	t, err := control.NewClient(names.RuntimeDir).Trace(ctx, namespace, name)
	switch {
	case errors.Is(err, control.ErrNoTrace):
		return nil, fmt.Errorf("%w; errand serve remembers the pods that it has run since it was started, of those that have ended the last %d: "+
			"look whether there is one of that name, by errand kubectl get pods -n %s", err, podtrace.Keep, namespace)
	case errors.Is(err, control.ErrNotRunning):
		return nil, fmt.Errorf("%w on data directory %s, or runs no pods (--node=false): where pods' time goes is known only while it runs", err, o.DataDir)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("ask errand serve: %w: it is root's, run this with sudo", err)
	}
	return t, err
}
