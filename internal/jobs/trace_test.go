package jobs

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"errand.dev/errand/internal/podtrace"
)

// told are the Jobs that a sink was told of.
type told struct{ jobs []podtrace.Finished }

func (*told) Step(podtrace.Identity, podtrace.Finished) {}

func (s *told) Job(_ podtrace.Identity, f podtrace.Finished) { s.jobs = append(s.jobs, f) }

// The engine says when it created a pod, when it counted it, and when a Job was over.
func TestTraces(t *testing.T) {
	w, sink := newWorld(t), &told{}
	w.engine.traces = podtrace.New(w.clock.Now, sink)
	job := w.create(makeJob("j").completions(1).obj())
	w.settle()
	pod := w.active(job)[0]
	names := func() string {
		trace, ok := w.engine.traces.Find(pod.Namespace, pod.Name)
		if !ok || trace.UID != string(pod.UID) || trace.JobUID != string(job.UID) || trace.JobName != "j" {
			t.Fatalf("%+v, %v", trace, ok)
		}
		out := ""
		for _, s := range trace.Steps {
			out += s.Name + " "
			for _, below := range s.Steps {
				out += "(" + below.Name + ") "
			}
		}
		return out
	}
	if got := names(); got != "SyncJob (CreatePod) " {
		t.Errorf("created: %s", got)
	}
	trace := w.engine.traces.Pod(podtrace.Identity{UID: string(pod.UID), JobUID: string(job.UID)})
	trace.Reached(podtrace.StatusWritten | podtrace.Freed)
	w.end(pod, corev1.PodSucceeded)
	w.settle()
	if got := names(); got != "SyncJob (CreatePod) CountPod " {
		t.Errorf("counted: %s", got)
	}
	if found, _ := w.engine.traces.Find(pod.Namespace, pod.Name); !found.Over {
		t.Error("the pod was counted, but isn't over")
	}
	if len(sink.jobs) != 1 || sink.jobs[0].Span != podtrace.RootSpan(string(job.UID)) || sink.jobs[0].Error != "" || sink.jobs[0].End.Before(sink.jobs[0].Start) {
		t.Errorf("Jobs told of: %+v", sink.jobs)
	}
	w.create(makeJob("failing").limit(0).obj())
	w.settle()
	w.endAll(w.job("failing"), corev1.PodFailed)
	w.settle()
	if len(sink.jobs) != 2 || sink.jobs[1].Error != "BackoffLimitExceeded" {
		t.Errorf("Jobs told of: %+v", sink.jobs)
	}
}
