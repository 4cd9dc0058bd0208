package otlp

import (
	"context"
	"encoding/hex"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"errand.dev/errand/internal/podtrace"
)

const (
	podUID = "0a1b2c3d-4e5f-4a6b-8c7d-8e9f0a1b2c3d"
	jobUID = "ffffffff-4e5f-4a6b-8c7d-8e9f0a1b2c3d"
)

func TestSpans(t *testing.T) {
	memory := tracetest.NewInMemoryExporter()
	e := newExporter(Config{SamplingRatePerMillion: FullSamplingRate, NodeName: "n", Version: "1"}, sdktrace.NewSimpleSpanProcessor(memory))
	pod := podtrace.Identity{Namespace: "ns", Name: "p", UID: podUID, JobName: "j", JobUID: jobUID}
	start := time.Unix(100, 0)
	e.Step(pod, podtrace.Finished{
		Span: 7, Parent: podtrace.RootSpan(podUID), Name: "PullImage", Container: "c", Detail: "busybox", Start: start, End: start.Add(time.Second), Error: "no",
	})
	e.Step(pod, podtrace.Finished{Span: podtrace.RootSpan(podUID), Name: "Pod", Start: start, End: start.Add(2 * time.Second)})
	e.Job(pod, podtrace.Finished{Span: podtrace.RootSpan(jobUID), Name: "Job", Start: start, End: start})
	spans := memory.GetSpans()
	if len(spans) != 3 {
		t.Fatalf("%d spans", len(spans))
	}
	const traceID, rootID = "0a1b2c3d4e5f4a6b8c7d8e9f0a1b2c3d", "0a1b2c3d4e5f4a6b"
	step, root, job := spans[0], spans[1], spans[2]
	if step.Name != "PullImage" || step.SpanContext.TraceID().String() != traceID || step.SpanContext.SpanID().String() != "0000000000000007" ||
		step.Parent.SpanID().String() != rootID || step.EndTime.Sub(step.StartTime) != time.Second || step.Status.Code != codes.Error {
		t.Errorf("the step: %+v", step)
	}
	attributes := fmt.Sprint(step.Attributes)
	if want := "[{k8s.namespace.name {4 0 ns <nil>}}"; len(attributes) < len(want) || len(step.Attributes) != 7 {
		t.Errorf("its attributes: %s", attributes)
	}
	if root.SpanContext.SpanID().String() != rootID || root.Parent.IsValid() || len(root.Links) != 1 ||
		root.Links[0].SpanContext.TraceID() != job.SpanContext.TraceID() || root.Links[0].SpanContext.SpanID() != job.SpanContext.SpanID() {
		t.Errorf("the pod: %+v", root)
	}
	if id := job.SpanContext.TraceID(); hex.EncodeToString(id[:4]) != "ffffffff" || job.Parent.IsValid() {
		t.Errorf("the Job: %+v", job)
	}
}

// Of random UIDs as many are sampled as was asked for.
func TestSampling(t *testing.T) {
	const n = 20000
	for _, rate := range []int32{0, 100_000, 500_000, FullSamplingRate} {
		e := newExporter(Config{SamplingRatePerMillion: rate}, sdktrace.NewSimpleSpanProcessor(tracetest.NewInMemoryExporter()))
		taken := 0
		for range n {
			if e.sampled(podtrace.TraceID(uuid.NewString())) {
				taken++
			}
		}
		want := float64(n) * float64(rate) / FullSamplingRate
		if d := float64(taken) - want; d > 0.03*n || d < -0.03*n || rate == 0 && taken != 0 || rate == FullSamplingRate && taken != n {
			t.Errorf("%d of %d at a rate of %d", taken, n, rate)
		}
	}
}

// Nobody waits for a collector that isn't there.
func TestNoCollector(t *testing.T) {
	e, err := New(t.Context(), Config{Endpoint: "127.0.0.1:1", SamplingRatePerMillion: FullSamplingRate})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for range 10000 {
		e.Step(podtrace.Identity{UID: podUID}, podtrace.Finished{Span: 1, Parent: 2, Name: "x", Start: began, End: began})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := e.Run(ctx); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 10*flushTimeout {
		t.Errorf("it took %s", took)
	}
}
