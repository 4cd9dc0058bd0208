package node

import (
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"errand.dev/errand/internal/podtrace"
)

// The node says what it does for a pod, until the pod is over; an agent that finds
// it ended has nothing to say.
func TestTraces(t *testing.T) {
	w := newWorld(t)
	w.runtime.Behave = exits(3)
	pod := makePod("p").obj()
	w.api.create(pod)
	a := w.start(func(a *agent) { a.traces = podtrace.New(w.clock.Now, nil) })
	w.waitPhase(pod, v1.PodFailed)
	var trace *podtrace.Trace
	w.until("the pod to be over", func() bool {
		found, ok := a.traces.Find(pod.Namespace, pod.Name)
		trace = found
		return ok && found.Over
	})
	if trace.UID != string(pod.UID) {
		t.Fatalf("%+v", trace)
	}
	var names []string
	for _, s := range trace.Steps {
		names = append(names, s.Name)
		if s.Running || s.Error != "" {
			t.Errorf("%+v", s)
		}
		if s.Name == "ContainerRun" && (s.Container != "main" || s.Detail != "exit code 3") {
			t.Errorf("%+v", s)
		}
	}
	for _, want := range []string{
		"PodSeen", "SetUpVolumes", "RunPodSandbox", "PrepareContainer", "CreateContainer", "StartContainer", "ContainerRun", "SyncPodStatus", "TearDownPod",
	} {
		if !slices.Contains(names, want) {
			t.Errorf("there is no %s among %v", want, names)
		}
	}
	a.kill()
	b := w.start(func(a *agent) { a.traces = podtrace.New(w.clock.Now, nil) })
	b.waitIdle()
	if trace, ok := b.traces.Find(pod.Namespace, pod.Name); ok {
		t.Errorf("the next agent says %+v", trace)
	}
}

// A pod of a Job's isn't over before the Job has counted it, or it is gone.
func TestTraceOfAJobsPod(t *testing.T) {
	w := newWorld(t)
	w.runtime.Behave = exits(0)
	pod := makePod("p").with(func(p *v1.Pod) {
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "batch/v1", Kind: "Job", Name: "j", UID: "uid-j", Controller: ptr.To(true)}}
	}).obj()
	w.api.create(pod)
	a := w.start(func(a *agent) { a.traces = podtrace.New(w.clock.Now, nil) })
	w.waitPhase(pod, v1.PodSucceeded)
	a.waitIdle()
	if trace, _ := a.traces.Find(pod.Namespace, pod.Name); trace.Over || trace.JobName != "j" {
		t.Errorf("%+v", trace)
	}
	mustDo(t, w.api.remove(pod, nil))
	a.waitForgotten(pod)
	if trace, _ := a.traces.Find(pod.Namespace, pod.Name); !trace.Over {
		t.Errorf("%+v", trace)
	}
}
