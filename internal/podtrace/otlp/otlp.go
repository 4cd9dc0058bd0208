// Package otlp sends the steps of package podtrace to a collector, as spans of
// OpenTelemetry, by OTLP over gRPC without TLS: Kubernetes' components do the
// same with their TracingConfiguration.
//
// A pod is a trace, whose ID is the pod's UID; a Job is a span in a trace of its
// own, which its pods' traces link to: one trace of a Job with ten thousand pods
// would be of no use to anybody. Whether a pod's trace is sampled follows from its
// ID, so that all who add to it decide alike.
//
// Spans are sent in batches, in the background. A collector that isn't there
// costs spans, never a pod's time.
package otlp

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"k8s.io/klog/v2"

	"errand.dev/errand/internal/podtrace"
)

const (
	// flushTimeout bounds how long what has not been sent yet holds up the end.
	flushTimeout = time.Second
	// FullSamplingRate is the rate at which every pod is sampled.
	FullSamplingRate = 1_000_000
)

// Config says where spans go.
type Config struct {
	// Endpoint is the collector's, as in TracingConfiguration: host:port, or a
	// target of gRPC's such as unix:///run/collector.sock.
	Endpoint string
	// SamplingRatePerMillion is how many pods of a million are sampled.
	SamplingRatePerMillion int32
	// NodeName is the node that the pods run on; Version is errand's.
	NodeName, Version string
}

// Exporter is a podtrace.Sink. Its methods may be called concurrently.
type Exporter struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
	rate     uint64
}

var _ podtrace.Sink = &Exporter{}

// New makes an Exporter. It doesn't wait for the collector.
func New(ctx context.Context, cfg Config) (*Exporter, error) {
	exporter, err := otlptracegrpc.New(ctx, otlptracegrpc.WithEndpoint(cfg.Endpoint), otlptracegrpc.WithInsecure())
	if err != nil {
		return nil, fmt.Errorf("send traces to %s: %w", cfg.Endpoint, err)
	}
	// What goes wrong is logged, rather than printed by the library.
	logger := klog.FromContext(ctx)
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		logger.Error(err, "Traces can't be sent", "endpoint", cfg.Endpoint)
	}))
	return newExporter(cfg, sdktrace.NewBatchSpanProcessor(exporter)), nil
}

func newExporter(cfg Config, processor sdktrace.SpanProcessor) *Exporter {
	about := resource.NewSchemaless(
		attribute.String("service.name", "errand"),
		attribute.String("service.version", cfg.Version),
		attribute.String("k8s.node.name", cfg.NodeName),
	)
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithSampler(sdktrace.AlwaysSample()), // what isn't to be sampled doesn't come here
		sdktrace.WithIDGenerator(given{}),
		sdktrace.WithResource(about),
		sdktrace.WithSpanProcessor(processor),
	)
	return &Exporter{provider: provider, tracer: provider.Tracer("errand.dev/errand/internal/podtrace"), rate: uint64(cfg.SamplingRatePerMillion)}
}

// Run returns nil once ctx has ended and what there was to send has been sent, or
// couldn't be in time.
func (e *Exporter) Run(ctx context.Context) error {
	<-ctx.Done()
	flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
	defer cancel()
	if err := e.provider.Shutdown(flush); err != nil {
		klog.FromContext(ctx).Error(err, "The last traces couldn't be sent")
	}
	return nil
}

// sampled decides by the last 7 bytes of the ID, which are random in a UID, as
// W3C's trace context asks of trace IDs. (The one before isn't quite, which the
// SDK's own sampler by ratio would take for random.)
func (e *Exporter) sampled(id [16]byte) bool {
	const bits = 56
	random := binary.BigEndian.Uint64(id[8:]) & (1<<bits - 1)
	return random < (1<<bits)/FullSamplingRate*e.rate || e.rate >= FullSamplingRate
}

// ids are those that a span is to have.
type ids struct {
	trace trace.TraceID
	span  trace.SpanID
}

type idsKey struct{}

// given gives spans the IDs in their contexts. It implements sdktrace.IDGenerator.
type given struct{}

// NewIDs implements sdktrace.IDGenerator.
func (given) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	id, _ := ctx.Value(idsKey{}).(ids)
	return id.trace, id.span
}

// NewSpanID implements sdktrace.IDGenerator.
func (given) NewSpanID(ctx context.Context, _ trace.TraceID) trace.SpanID {
	id, _ := ctx.Value(idsKey{}).(ids)
	return id.span
}

func spanID(id uint64) (out trace.SpanID) {
	binary.BigEndian.PutUint64(out[:], id)
	return out
}

// Step implements podtrace.Sink.
func (e *Exporter) Step(pod podtrace.Identity, step podtrace.Finished) {
	traceID := podtrace.TraceID(pod.UID)
	if !e.sampled(traceID) {
		return
	}
	attributes := []attribute.KeyValue{
		attribute.String("k8s.namespace.name", pod.Namespace),
		attribute.String("k8s.pod.name", pod.Name),
		attribute.String("k8s.pod.uid", pod.UID),
	}
	if pod.JobName != "" {
		attributes = append(attributes, attribute.String("k8s.job.name", pod.JobName), attribute.String("k8s.job.uid", pod.JobUID))
	}
	if step.Container != "" {
		attributes = append(attributes, attribute.String("k8s.container.name", step.Container))
	}
	if step.Detail != "" {
		attributes = append(attributes, attribute.String(detailKey(step.Name), step.Detail))
	}
	options := []trace.SpanStartOption{trace.WithAttributes(attributes...)}
	if step.Parent == 0 && pod.JobUID != "" {
		options = append(options, trace.WithLinks(trace.Link{SpanContext: whole(pod.JobUID)}))
	}
	e.emit(traceID, step, options...)
}

// Job implements podtrace.Sink.
func (e *Exporter) Job(job podtrace.Identity, step podtrace.Finished) {
	traceID := podtrace.TraceID(job.JobUID)
	if !e.sampled(traceID) {
		return
	}
	e.emit(traceID, step, trace.WithAttributes(
		attribute.String("k8s.namespace.name", job.Namespace),
		attribute.String("k8s.job.name", job.JobName),
		attribute.String("k8s.job.uid", job.JobUID),
	))
}

func (e *Exporter) emit(traceID trace.TraceID, step podtrace.Finished, options ...trace.SpanStartOption) {
	ctx := context.WithValue(context.Background(), idsKey{}, ids{traceID, spanID(step.Span)})
	if step.Parent != 0 {
		ctx = trace.ContextWithSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
			TraceID: traceID, SpanID: spanID(step.Parent), TraceFlags: trace.FlagsSampled,
		}))
	}
	_, span := e.tracer.Start(ctx, step.Name, append(options, trace.WithTimestamp(step.Start))...)
	if step.Error != "" {
		span.SetStatus(codes.Error, step.Error)
	}
	span.End(trace.WithTimestamp(step.End))
}

// whole is the span of an object as a whole.
func whole(uid string) trace.SpanContext {
	return trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: podtrace.TraceID(uid), SpanID: spanID(podtrace.RootSpan(uid)), TraceFlags: trace.FlagsSampled,
	})
}

// detailKey is the attribute that a step's detail is.
func detailKey(name string) string {
	switch name {
	case "PullImage":
		return "container.image.name"
	case "BindPod":
		return "k8s.node.name"
	case "SyncPodStatus":
		return "k8s.pod.phase"
	case "RunPodSandbox":
		return "k8s.runtimeclass.handler"
	case "FetchImage":
		return "oci.manifest.digest"
	case "AttachNetwork":
		return "k8s.pod.ip"
	}
	return "errand.detail." + strings.ToLower(name)
}
