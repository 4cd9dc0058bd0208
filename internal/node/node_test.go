package node

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	v1 "k8s.io/api/core/v1"
	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/testutil"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"errand.dev/errand/internal/node/fakecri"
)

func exits(code int32) func(*runtimeapi.ContainerConfig) fakecri.Behaviour {
	return func(*runtimeapi.ContainerConfig) fakecri.Behaviour {
		return fakecri.Behaviour{Exits: true, ExitCode: code}
	}
}

func TestEcho(t *testing.T) {
	w := newWorld(t)
	w.runtime.Behave = exits(0)
	pod := makePod("echo").obj()
	w.api.create(pod)
	a := w.start()
	got := w.waitPhase(pod, v1.PodSucceeded)
	a.waitIdle()

	if n := w.runtime.Starts("uid-echo", "main"); n != 1 {
		t.Errorf("started %d times", n)
	}
	if diff := cmp.Diff([]string{
		`Normal Pulled(spec.containers{main}): Container image "img:1" already present on machine and can be accessed by the pod`,
		`Normal Created(spec.containers{main}): Container created`,
		`Normal Started(spec.containers{main}): Container started`,
	}, w.events.all()); diff != "" {
		t.Error(diff)
	}
	cs := got.Status.ContainerStatuses[0]
	if cs.State.Terminated == nil || cs.State.Terminated.Reason != "Completed" || cs.ContainerID == "" || *cs.Started || cs.Ready {
		t.Errorf("container status %+v", cs)
	}
	if got.Status.PodIP == "" || got.Status.HostIP != "192.0.2.7" || got.Status.StartTime == nil || got.Status.QOSClass != v1.PodQOSBestEffort {
		t.Errorf("status %+v", got.Status)
	}
	if _, ready := w.runtime.Sandboxes(); ready != 0 {
		t.Error("the sandbox outlives the pod")
	}
}

func TestRunningThenFailed(t *testing.T) {
	w := newWorld(t)
	pod := makePod("p").obj()
	a := w.start()
	w.api.create(pod)
	got := w.waitPhase(pod, v1.PodRunning)
	if cs := got.Status.ContainerStatuses[0]; cs.State.Running == nil || !cs.Ready || !*cs.Started {
		t.Errorf("container status %+v", cs)
	}
	a.waitIdle()
	if err := w.runtime.Exit("uid-p", "main", 3); err != nil {
		t.Fatal(err)
	}
	got = w.waitPhase(pod, v1.PodFailed)
	if end := got.Status.ContainerStatuses[0].State.Terminated; end == nil || end.ExitCode != 3 {
		t.Errorf("container status %+v", got.Status.ContainerStatuses)
	}
}

// The metrics stand in two registries: the process's own and the node's.
func TestMetrics(t *testing.T) {
	w := newWorld(t)
	a := w.start()
	pod := makePod("p").obj()
	w.api.create(pod)
	w.waitPhase(pod, v1.PodRunning)
	for range 2 {
		registry := metrics.NewKubeRegistry()
		if err := errors.Join(a.node.Metrics().Register(registry), a.node.RegisterProbes(registry)); err != nil {
			t.Fatal(err)
		}
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		if problems, err := promlint.NewWithMetricFamilies(families).Lint(); err != nil || len(problems) > 0 {
			t.Errorf("%v, %v", problems, err)
		}
		want := `
			# HELP kubelet_running_pods [ALPHA] Number of pods that have a running pod sandbox
			# TYPE kubelet_running_pods gauge
			kubelet_running_pods 1
		`
		if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "kubelet_running_pods"); err != nil {
			t.Error(err)
		}
	}
}
