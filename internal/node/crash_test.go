package node

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	v1 "k8s.io/api/core/v1"
	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"
)

// The agent is killed after each single call that changes something, in the
// runtime or in the API, and followed by another. Whatever the moment, nothing
// is started twice and the exit code reaches the API.
func TestKilledAfterEveryCall(t *testing.T) {
	for name, c := range map[string]struct {
		pod    *v1.Pod
		starts []string
		phase  v1.PodPhase
	}{
		"one container": {makePod("p").obj(), []string{"main"}, v1.PodFailed},
		"init and two containers": {
			makePod("p").init("i0", "i1").container(container("side")).obj(),
			[]string{"i0", "i1", "main", "side"}, v1.PodFailed,
		},
	} {
		t.Run(name, func(t *testing.T) {
			for n := 1; ; n++ {
				if done := killedAfter(t, n, c.pod, c.starts, c.phase); done {
					t.Logf("%d moments to die at", n-1)
					return
				}
			}
		})
	}
}

func killedAfter(t *testing.T, n int, pod *v1.Pod, starts []string, phase v1.PodPhase) (survived bool) {
	t.Run(fmt.Sprint(n), func(t *testing.T) {
		w := newWorld(t)
		w.runtime.Behave = exitByName(map[string]int32{"main": 7})
		w.api.create(pod)
		first := w.start(func(a *agent) { a.conn.DieAfter(n) })
		w.waitOrDeath(first, pod, func(p *v1.Pod) bool { return p.Status.Phase == phase })
		survived = first.restsAlive()
		first.kill()
		second := w.start()
		got := w.waitPhase(pod, phase)
		second.waitIdle()
		for _, name := range starts {
			if s := w.runtime.Starts(string(pod.UID), name); s != 1 {
				t.Errorf("%s was started %d times", name, s)
			}
		}
		if end := got.Status.ContainerStatuses[0].State.Terminated; end == nil || end.ExitCode != 7 {
			t.Errorf("the exit code was lost: %+v", got.Status.ContainerStatuses[0].State)
		}
		if _, ready := w.runtime.Sandboxes(); ready != 0 {
			t.Error("a sandbox was left")
		}
		// And it can be got rid of.
		if err := w.api.remove(pod, nil); err != nil {
			t.Fatal(err)
		}
		w.waitGone(pod)
		second.waitForgotten(pod)
		if all, _ := w.runtime.Sandboxes(); all != 0 {
			t.Errorf("%d sandboxes left after the pod is gone", all)
		}
		w.mustBeEmpty()
	})
	return survived
}

// The same for the deletion of a running pod.
func TestKilledWhileDeleting(t *testing.T) {
	for n := 1; n <= 8; n++ {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			w := newWorld(t)
			pod := makePod("p").obj()
			w.api.create(pod)
			first := w.start()
			w.waitPhase(pod, v1.PodRunning)
			first.waitIdle()
			first.conn.DieAfter(n)
			if err := w.api.remove(pod, nil); err != nil {
				t.Fatal(err)
			}
			w.waitOrDeath(first, pod, func(p *v1.Pod) bool { return p == nil })
			first.kill()
			second := w.start()
			w.waitGone(pod)
			second.waitForgotten(pod)
			if s := w.runtime.Starts("uid-p", "main"); s != 1 {
				t.Errorf("started %d times", s)
			}
			if all, _ := w.runtime.Sandboxes(); all != 0 {
				t.Errorf("%d sandboxes left", all)
			}
			w.mustBeEmpty()
		})
	}
}

// A container that ended while no agent was there.
func TestExitWhileDown(t *testing.T) {
	w := newWorld(t)
	pod := makePod("p").obj()
	w.api.create(pod)
	a := w.start()
	w.waitPhase(pod, v1.PodRunning)
	a.kill()
	if err := w.runtime.Exit("uid-p", "main", 42); err != nil {
		t.Fatal(err)
	}
	w.start()
	got := w.waitPhase(pod, v1.PodFailed)
	if end := got.Status.ContainerStatuses[0].State.Terminated; end == nil || end.ExitCode != 42 {
		t.Errorf("%+v", got.Status.ContainerStatuses[0].State)
	}
}

// A container whose end the API had not been told when it went down for a while.
func TestAPIDown(t *testing.T) {
	w := newWorld(t)
	pod := makePod("p").obj()
	w.api.create(pod)
	a := w.start()
	w.waitPhase(pod, v1.PodRunning)
	a.waitIdle()
	w.api.setDown(true)
	if err := w.runtime.Exit("uid-p", "main", 5); err != nil {
		t.Fatal(err)
	}
	w.stepUntil(func() bool { return w.api.attempts() >= 3 })
	w.api.setDown(false)
	w.stepUntil(func() bool {
		p, _ := w.api.get(pod)
		return p.Status.Phase == v1.PodFailed
	})
}

// Others change the pod so often that the API gives up on a patch.
func TestConflicts(t *testing.T) {
	w := newWorld(t)
	w.api.busy = 2
	w.runtime.Behave = exits(0)
	pod := makePod("p").obj()
	w.api.create(pod)
	w.start()
	w.stepUntil(func() bool {
		p, _ := w.api.get(pod)
		return p.Status.Phase == v1.PodSucceeded
	})
}

func TestReboot(t *testing.T) {
	for _, c := range []struct {
		policy v1.RestartPolicy
		phase  v1.PodPhase
		starts int
	}{
		{v1.RestartPolicyNever, v1.PodFailed, 1},
		{v1.RestartPolicyOnFailure, v1.PodRunning, 2},
		{v1.RestartPolicyAlways, v1.PodRunning, 2},
	} {
		for _, lost := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s lost=%v", c.policy, lost), func(t *testing.T) {
				w := newWorld(t)
				pod := makePod("p").restart(c.policy).obj()
				w.api.create(pod)
				a := w.start()
				w.waitPhase(pod, v1.PodRunning)
				a.kill()
				if w.runtime.Reboot(); lost {
					w.runtime.Lose()
				}
				second := w.start()
				got := w.wait(pod, "what becomes of it", func(p *v1.Pod) bool {
					cs := p.Status.ContainerStatuses[0]
					return p.Status.Phase == c.phase && (cs.RestartCount == 1 || c.starts == 1)
				})
				second.waitIdle()
				if s := w.runtime.Starts("uid-p", "main"); s != c.starts {
					t.Errorf("started %d times", s)
				}
				cs := got.Status.ContainerStatuses[0]
				end := cs.State.Terminated
				if c.starts > 1 {
					end = cs.LastTerminationState.Terminated
				}
				if end == nil || end.Reason != "ContainerStatusUnknown" || end.ExitCode != 137 {
					t.Errorf("%+v", cs)
				}
			})
		}
	}
}

// A pod that vanished from the API while no agent was there.
func TestOrphan(t *testing.T) {
	w := newWorld(t)
	pod := makePod("p").obj()
	w.api.create(pod)
	a := w.start()
	w.waitPhase(pod, v1.PodRunning)
	a.kill()
	if err := w.api.remove(pod, ptr.To[int64](0)); err != nil {
		t.Fatal(err)
	}
	second := w.start()
	second.waitForgotten(pod)
	if all, _ := w.runtime.Sandboxes(); all != 0 {
		t.Errorf("%d sandboxes left", all)
	}
	w.mustBeEmpty()
}

// slowSweep is a runtime in which the search for orphans takes until proceed.
type slowSweep struct {
	internalapi.RuntimeService
	begun, proceed chan struct{}
}

func (s slowSweep) ListPodSandbox(ctx context.Context, filter *runtimeapi.PodSandboxFilter) ([]*runtimeapi.PodSandbox, error) {
	if filter == nil { // workers ask for their own pod's
		close(s.begun)
		<-s.proceed
	}
	return s.RuntimeService.ListPodSandbox(ctx, filter)
}

// A pod that is bound while orphans are being looked for is none.
func TestBoundDuringAdoption(t *testing.T) {
	w := newWorld(t)
	sweep := slowSweep{begun: make(chan struct{}), proceed: make(chan struct{})}
	a := w.start(func(a *agent) {
		sweep.RuntimeService = a.conn
		a.cri = sweep
	})
	<-sweep.begun
	pod := makePod("p").obj()
	w.api.create(pod)
	w.waitPhase(pod, v1.PodRunning)
	close(sweep.proceed)
	a.waitIdle()
	if running := w.runtime.Running("uid-p"); len(running) != 1 {
		t.Errorf("the pod was taken for an orphan: %v runs", running)
	}
	if _, err := os.Stat(filepath.Join(w.dir, "logs", "ns_p_uid-p")); err != nil {
		t.Error(err)
	}
}

// A pod that was deleted and made again while the watch was cut off.
func TestReplacedUnseen(t *testing.T) {
	w := newWorld(t)
	pod := makePod("p").obj()
	w.api.create(pod)
	a := w.start()
	w.waitPhase(pod, v1.PodRunning)
	a.waitIdle()
	w.api.change(pod, func(p *v1.Pod) { p.UID, p.Status = "another", v1.PodStatus{Phase: v1.PodPending} })
	w.waitPhase(pod, v1.PodRunning)
	a.waitForgotten(pod)
	if old, now := w.runtime.Running("uid-p"), w.runtime.Running("another"); len(old) != 0 || len(now) != 1 {
		t.Errorf("of the old pod runs %v, of the new one %v", old, now)
	}
}

// The events of the runtime are cut off: nothing may be missed.
func TestEventsCutOff(t *testing.T) {
	w := newWorld(t)
	pod := makePod("p").obj()
	w.api.create(pod)
	a := w.start()
	w.waitPhase(pod, v1.PodRunning)
	a.waitIdle()
	a.conn.CutEvents()
	if err := w.runtime.Exit("uid-p", "main", 0); err != nil {
		t.Fatal(err)
	}
	w.stepUntil(func() bool {
		p, _ := w.api.get(pod)
		return p.Status.Phase == v1.PodSucceeded
	})
}
