package node

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"errand.dev/errand/internal/node/fakecri"
)

// lowOnDisk is a status as the eviction manager asks for it.
func lowOnDisk() *v1.PodStatus {
	return &v1.PodStatus{
		Phase: v1.PodFailed, Reason: "Evicted", Message: "The node was low on resource: disk. ",
		Conditions: []v1.PodCondition{{
			Type: v1.DisruptionTarget, Status: v1.ConditionTrue, Reason: v1.PodReasonTerminationByKubelet, Message: "The node was low on resource: disk. ",
		}},
	}
}

func disruption(p *v1.Pod) *v1.PodCondition {
	for i := range p.Status.Conditions {
		if p.Status.Conditions[i].Type == v1.DisruptionTarget {
			return &p.Status.Conditions[i]
		}
	}
	return nil
}

func wantEvicted(t *testing.T, got *v1.Pod, exitCode int32) {
	t.Helper()
	end := got.Status.ContainerStatuses[0].State.Terminated
	if got.Status.Reason != "Evicted" || got.Status.Message != lowOnDisk().Message || end == nil || end.ExitCode != exitCode {
		t.Errorf("%+v", got.Status)
	}
	if c := disruption(got); c == nil || c.Reason != v1.PodReasonTerminationByKubelet || c.Message != lowOnDisk().Message || c.LastTransitionTime.IsZero() {
		t.Errorf("condition %+v", c)
	}
}

func TestEvict(t *testing.T) {
	w := newWorld(t)
	w.runtime.Behave = func(*runtimeapi.ContainerConfig) fakecri.Behaviour { return fakecri.Behaviour{IgnoresTerm: true} }
	pod := makePod("p").restart(v1.RestartPolicyAlways).obj()
	w.api.create(pod)
	a := w.start()
	w.waitPhase(pod, v1.PodRunning)
	a.waitIdle()
	if active := a.node.Active(); len(active) != 1 || active[0].Name != "p" {
		t.Errorf("active: %v", active)
	}
	done := make(chan error, 1)
	go func() { done <- a.node.Evict(t.Context(), pod, lowOnDisk(), time.Second) }()
	// It gets the eviction's grace period, not its own, and is told before.
	got := w.wait(pod, "the announcement", func(p *v1.Pod) bool { return p.Status.Reason == "Evicted" })
	if got.Status.Phase != v1.PodRunning || disruption(got) == nil {
		t.Errorf("announced as %+v", got.Status)
	}
	w.until("the signal", func() bool { return slices.Contains(a.conn.Calls(), "StopContainer") && w.clock.HasWaiters() })
	w.clock.Step(minGrace)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	wantEvicted(t, w.waitPhase(pod, v1.PodFailed), 137)
	if !a.node.Ended(pod) || len(a.node.Active()) > 0 {
		t.Error("it hasn't ended")
	}
	// What its containers left is there until room is needed.
	if dead := w.runtime.Dead("uid-p"); len(dead) != 1 {
		t.Errorf("dead containers: %v", dead)
	}
	if err := a.node.DeleteAllUnusedContainers(t.Context()); err != nil {
		t.Fatal(err)
	}
	if dead := w.runtime.Dead("uid-p"); len(dead) != 0 {
		t.Errorf("dead containers: %v", dead)
	}
	a.waitIdle()
	wantEvicted(t, w.waitPhase(pod, v1.PodFailed), 137)
	if err := w.api.remove(pod, nil); err != nil {
		t.Fatal(err)
	}
	a.waitForgotten(pod)
	w.mustBeEmpty()
}

// A pod that has done its work before it could be told keeps its outcome.
func TestEvictAnEndedPod(t *testing.T) {
	w := newWorld(t)
	pod := makePod("p").obj()
	w.api.create(pod)
	a := w.start()
	w.waitPhase(pod, v1.PodRunning)
	a.waitIdle()
	a.node.existing(pod.UID).mu.Lock() // so that both are seen at once
	mustExit(t, w, pod, "main", 0)
	done := make(chan error, 1)
	go func() { done <- a.node.Evict(context.Background(), pod, lowOnDisk(), time.Second) }()
	a.node.existing(pod.UID).mu.Unlock()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	got := w.waitPhase(pod, v1.PodSucceeded)
	if got.Status.Reason != "" || disruption(got) != nil {
		t.Errorf("%+v", got.Status)
	}
}

// An agent that dies once it has told of an eviction is followed by one that goes
// on with it, whether the containers run yet or not.
func TestEvictionOutlivesTheAgent(t *testing.T) {
	for name, end := range map[string]func(*testing.T, *world, *v1.Pod){
		"they run":   func(*testing.T, *world, *v1.Pod) {},
		"they ended": func(t *testing.T, w *world, pod *v1.Pod) { mustExit(t, w, pod, "main", 143) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.runtime.Behave = func(*runtimeapi.ContainerConfig) fakecri.Behaviour { return fakecri.Behaviour{IgnoresTerm: true} }
			pod := makePod("p").obj()
			w.api.create(pod)
			a := w.start()
			w.waitPhase(pod, v1.PodRunning)
			a.waitIdle()
			go func() { _ = a.node.Evict(t.Context(), pod, lowOnDisk(), time.Second) }()
			w.wait(pod, "the announcement", func(p *v1.Pod) bool { return p.Status.Reason == "Evicted" })
			a.kill()
			end(t, w, pod)
			w.start()
			w.stepUntil(func() bool { p, _ := w.api.get(pod); return p.Status.Phase == v1.PodFailed })
			got, _ := w.api.get(pod)
			want := int32(137)
			if name == "they ended" {
				want = 143
			}
			wantEvicted(t, got, want)
		})
	}
}

// A pod that isn't admitted never starts.
func TestAdmit(t *testing.T) {
	w := newWorld(t)
	pod := makePod("p").obj()
	w.api.create(pod)
	w.start(func(a *agent) {
		a.admit = func(context.Context, *v1.Pod) (string, string) {
			return "Evicted", "The node had condition: [DiskPressure]. "
		}
	})
	got := w.waitPhase(pod, v1.PodFailed)
	if got.Status.Reason != "Evicted" || got.Status.Message != "Pod was rejected: The node had condition: [DiskPressure]. " {
		t.Errorf("%+v", got.Status)
	}
	if !w.events.has("Warning Evicted: The node had condition: [DiskPressure]. ") {
		t.Errorf("events:\n%s", w.events)
	}
}

// The agent is killed after each single call of an eviction that changes
// something: what the API says of the pod's end is never its container's exit code
// alone, which would count as a failure.
func TestKilledWhileEvicting(t *testing.T) {
	for n := 1; ; n++ {
		w := newWorld(t)
		pod := makePod("p").obj()
		w.api.create(pod)
		first := w.start()
		w.waitPhase(pod, v1.PodRunning)
		first.waitIdle()
		first.conn.DieAfter(n)
		go func() { _ = first.node.Evict(t.Context(), pod, lowOnDisk(), time.Second) }()
		w.waitOrDeath(first, pod, func(p *v1.Pod) bool { return isTerminal(p.Status.Phase) })
		survived := first.restsAlive()
		first.kill()
		second := w.start()
		second.waitIdle()
		got, _ := w.api.get(pod)
		if got.Status.Phase == v1.PodRunning && got.Status.Reason == "" {
			t.Fatalf("killed after %d calls: the eviction, which was told, is forgotten", n)
		}
		wantEvicted(t, w.waitPhase(pod, v1.PodFailed), 143)
		if survived {
			t.Logf("%d moments to die at", n-1)
			return
		}
	}
}

// A pod whose containers were ended on purpose, while nobody saw it, was disrupted;
// one that would restart them does.
func TestDrained(t *testing.T) {
	for policy, phase := range map[v1.RestartPolicy]v1.PodPhase{v1.RestartPolicyNever: v1.PodFailed, v1.RestartPolicyAlways: v1.PodRunning} {
		for _, drained := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s drained=%v", policy, drained), func(t *testing.T) {
				w := newWorld(t)
				pod := makePod("p").restart(policy).obj()
				w.api.create(pod)
				a := w.start()
				before := w.waitPhase(pod, v1.PodRunning)
				a.waitIdle()
				a.kill()
				w.runtime.Lose()
				second := w.start(func(a *agent) {
					_, id, _ := strings.Cut(before.Status.ContainerStatuses[0].ContainerID, "://")
					a.drained = func(asked string) bool { return drained && asked == id }
				})
				got := w.wait(pod, "what becomes of it", func(p *v1.Pod) bool {
					return p.Status.Phase == phase && (policy == v1.RestartPolicyNever || p.Status.ContainerStatuses[0].RestartCount == 1)
				})
				second.waitIdle()
				c := disruption(got)
				if told := got.Status.Reason == "Terminated" && c != nil && c.Reason == v1.PodReasonTerminationByKubelet; told != (drained && phase == v1.PodFailed) {
					t.Errorf("%s: %s, %+v", got.Status.Reason, got.Status.Message, c)
				}
			})
		}
	}
}
