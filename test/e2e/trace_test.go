//go:build e2e

package e2e

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"

	"errand.dev/errand/internal/podtrace"
)

// collector is an OpenTelemetry collector that keeps the spans it gets.
type collector struct {
	collectorpb.UnimplementedTraceServiceServer
	addr string

	mu    sync.Mutex
	spans map[string]*tracepb.Span // by ID
}

func startCollector(t *testing.T) *collector {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{addr: listener.Addr().String(), spans: map[string]*tracepb.Span{}}
	server := grpc.NewServer()
	collectorpb.RegisterTraceServiceServer(server, c)
	go func() { _ = server.Serve(listener) }() // ends by Stop
	t.Cleanup(server.Stop)
	return c
}

// Export implements collectorpb.TraceServiceServer.
func (c *collector) Export(_ context.Context, req *collectorpb.ExportTraceServiceRequest) (*collectorpb.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range req.GetResourceSpans() {
		for _, s := range r.GetScopeSpans() {
			for _, span := range s.GetSpans() {
				c.spans[string(span.GetSpanId())] = span
			}
		}
	}
	return &collectorpb.ExportTraceServiceResponse{}, nil
}

// path is a span's name after those of the spans that it is a part of.
func (c *collector) path(t *testing.T, s *tracepb.Span) string {
	if len(s.GetParentSpanId()) == 0 {
		return s.GetName()
	}
	parent := c.spans[string(s.GetParentSpanId())]
	if parent == nil || string(parent.GetTraceId()) != string(s.GetTraceId()) {
		t.Errorf("%s is below a span that isn't in its trace", s.GetName())
		return s.GetName()
	}
	return c.path(t, parent) + "/" + s.GetName()
}

// A Job's pod is a trace, whole, with the right parents, at the collector.
func TestTraces(t *testing.T) {
	c := startCollector(t)
	e := start(t, "--tracing-endpoint", c.addr)
	e.apply(job("traced", "true", "completions: 1"))
	e.wait("condition=Complete", "job/traced")
	ids := strings.Fields(e.kubectl("get", "pods", "-l", "job-name=traced", "-o", "jsonpath={.items[0].metadata.uid} {.items[0].metadata.name} {.items[0].status.podIP}"))
	jobUID := e.kubectl("get", "job", "traced", "-o", "jsonpath={.metadata.uid}")

	// What its way was is also remembered where nobody collects; once the pod is over it has all been told.
	trace := e.traceOf("default/" + ids[1])
	for !trace.Over {
		trace = e.traceOf("default/" + ids[1])
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := e.Stop(ctx); err != nil { // which sends the rest
		t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	podTrace, jobTrace := podtrace.TraceID(ids[0]), podtrace.TraceID(jobUID)
	var paths []string
	for _, s := range c.spans {
		if s.GetEndTimeUnixNano() < s.GetStartTimeUnixNano() {
			t.Errorf("%s ends before it begins", s.GetName())
		}
		path := c.path(t, s)
		switch string(s.GetTraceId()) {
		case string(podTrace[:]):
			paths = append(paths, path)
		case string(jobTrace[:]):
			if path != "Job" {
				t.Errorf("%s is in the Job's trace", path)
			}
		default:
			t.Errorf("%s is in the trace %s", path, hex.EncodeToString(s.GetTraceId()))
		}
		if path == "Pod" {
			if l := s.GetLinks(); len(l) != 1 || string(l[0].GetTraceId()) != string(jobTrace[:]) || c.spans[string(l[0].GetSpanId())].GetName() != "Job" {
				t.Errorf("the pod's links are %v", l)
			}
			if took := int64(s.GetEndTimeUnixNano() - s.GetStartTimeUnixNano()); took != int64(trace.Duration) {
				t.Errorf("the pod took %d ns as a span, %d as a trace", took, trace.Duration)
			}
		}
	}
	for _, want := range []string{
		"Pod", "Pod/SyncJob", "Pod/SyncJob/CreatePod", "Pod/SchedulePod", "Pod/SchedulePod/BindPod", "Pod/PodSeen", "Pod/SetUpVolumes",
		"Pod/RunPodSandbox", "Pod/RunPodSandbox/CreateCgroup", "Pod/RunPodSandbox/CreateNamespaces", "Pod/RunPodSandbox/AttachNetwork",
		"Pod/PullImage", "Pod/PullImage/ResolveImage", "Pod/PullImage/FetchImage", "Pod/PrepareContainer", "Pod/CreateContainer", "Pod/CreateContainer/MountRootfs", "Pod/CreateContainer/WriteSpec",
		"Pod/StartContainer", "Pod/StartContainer/PrepareLaunch", "Pod/StartContainer/RunInShim", "Pod/StartContainer/RunInShim/Launch",
		"Pod/ContainerRun", "Pod/SyncPodStatus", "Pod/TearDownPod", "Pod/CountPod",
	} {
		if !slices.Contains(paths, want) {
			t.Errorf("there is no %s among %v", want, paths)
		}
	}
	steps := 0
	countSteps(trace.Steps, &steps)
	if steps != len(paths)-1 {
		t.Errorf("%d steps are remembered, %d were sent", steps, len(paths)-1)
	}
}

func countSteps(steps []podtrace.Step, n *int) {
	for _, s := range steps {
		*n++
		countSteps(s.Steps, n)
	}
}

// doctor runs errand doctor on the test's errand.
func (e *errand) doctor(args ...string) (string, error) {
	e.t.Helper()
	out, err := exec.CommandContext(e.t.Context(), filepath.Join(bin, "errand"), append([]string{"doctor", "--data-dir", e.cfg.DataDir}, args...)...).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = errors.New(string(exit.Stderr))
	}
	return string(out), err
}

func (e *errand) traceOf(pod string) *podtrace.Trace {
	e.t.Helper()
	out, err := e.doctor("--trace-pod", pod, "-o", "json")
	if err != nil {
		e.t.Fatal(err)
	}
	trace := &podtrace.Trace{}
	if err := json.Unmarshal([]byte(out), trace); err != nil {
		e.t.Fatalf("%v: %s", err, out)
	}
	return trace
}

// errand doctor --trace-pod tells where a pod's time went, or what holds it up.
func TestDoctorTracePod(t *testing.T) {
	e := start(t)
	e.runPod("quick", `
  containers: [{name: work, image: "busybox:latest", command: ["true"]}]
`)
	out, err := e.doctor("--trace-pod", "quick")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", out)
	for _, line := range []string{
		`Pod: +default/quick`, `Trace: +[0-9a-f]{32}`, `Took: +[0-9.]+ m?s`,
		` +0\.0 ms +[0-9.]+ ms .* SchedulePod`, `.*█.*`, `.* └─ BindPod \(.+\)`, `.* RunPodSandbox`, `.* ├─ CreateNamespaces`,
		`.* PullImage work \(busybox:latest\)`, `.* +└─ RunInShim`, `.* +└─ Launch \((errand|runc)\)`, `.* ContainerRun work \(exit code 0\)`,
		`.* SyncPodStatus \(Succeeded\)`,
	} {
		if !regexp.MustCompile(`(?m)^` + line).MatchString(out) {
			t.Errorf("no line %q", line)
		}
	}
	e.applyPod("stuck", `
  containers: [{name: work, image: "busybox:latest", command: ["true"], resources: {requests: {cpu: 1000}}}]
`)
	e.awaitEvent("stuck", "FailedScheduling")
	trace := e.traceOf("default/stuck")
	if len(trace.Steps) != 1 || trace.Steps[0].Name != "SchedulePod" || !trace.Steps[0].Running || trace.Steps[0].Duration <= 0 {
		t.Errorf("one that waits for a node: %+v", trace)
	}
	if yaml, err := e.doctor("--trace-pod", "default/quick", "-o", "yaml"); err != nil || !strings.Contains(yaml, "name: RunPodSandbox\n") {
		t.Errorf("%s, %v", yaml, err)
	}
	if _, err := e.doctor("--trace-pod", "default/none"); err == nil || !strings.Contains(err.Error(), "nothing is recorded of the pod: default/none; errand serve remembers") {
		t.Errorf("one that there never was: %v", err)
	}
}
