package node

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

func does(command string) *v1.LifecycleHandler {
	return &v1.LifecycleHandler{Exec: &v1.ExecAction{Command: []string{command}}}
}

func postStart(command string) func(*v1.Container) {
	return func(c *v1.Container) { c.Lifecycle = &v1.Lifecycle{PostStart: does(command)} }
}

func preStopping(command string) func(*v1.Container) {
	return func(c *v1.Container) { c.Lifecycle = &v1.Lifecycle{PreStop: does(command)} }
}

// Until its postStart hook is over a container isn't shown to run, isn't probed,
// and the next one isn't started.
func TestPostStart(t *testing.T) {
	w := newWorld(t)
	c := w.commands()
	c.set("greet", "hangs")
	pod := makePod("p").main(postStart("greet")).main(func(c *v1.Container) { c.ReadinessProbe = asks("ready?") }).container(container("next")).obj()
	w.api.create(pod)
	a := w.start()
	w.until("the hook", func() bool { return c.count("main/0 greet") == 1 })
	a.waitIdle()
	got, _ := w.api.get(pod)
	if s := got.Status.ContainerStatuses[0]; s.State.Waiting == nil || s.State.Waiting.Reason != "ContainerCreating" || s.Ready {
		t.Errorf("meanwhile it is %+v", s)
	}
	if r := running(w, pod); !slices.Equal(r, []string{"main/0"}) || c.count("main/0 ready?") != 0 {
		t.Errorf("meanwhile %v run, asked %d times", r, c.count("main/0 ready?"))
	}
	// An agent that comes in between can't know whether the hook came to its end.
	a.kill()
	c.set("greet", "works")
	w.start()
	w.waitReady(pod, true)
	if n := c.count("main/0 greet"); n != 2 {
		t.Errorf("the hook was carried out %d times", n)
	}
	if r := running(w, pod); !slices.Equal(r, []string{"main/0", "next/0"}) {
		t.Errorf("%v run", r)
	}
}

// A hook that was carried out isn't again after a restart of the agent.
func TestPostStartOnce(t *testing.T) {
	w := newWorld(t)
	c := w.commands()
	pod := makePod("p").main(postStart("greet")).obj()
	w.api.create(pod)
	a := w.start()
	w.waitPhase(pod, v1.PodRunning)
	a.waitIdle()
	a.kill()
	w.start().waitIdle()
	if n := c.count("main/0 greet"); n != 1 {
		t.Errorf("the hook was carried out %d times", n)
	}
}

// A container whose postStart hook fails is killed, its preStop hook included, and
// runs again if its policy says so.
func TestPostStartFails(t *testing.T) {
	for policy, ends := range map[v1.RestartPolicy]func(*v1.Pod) bool{
		v1.RestartPolicyNever: func(p *v1.Pod) bool { return p.Status.Phase == v1.PodFailed },
		v1.RestartPolicyOnFailure: func(p *v1.Pod) bool {
			return len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].RestartCount == 1
		},
	} {
		t.Run(string(policy), func(t *testing.T) {
			w := newWorld(t)
			c := w.commands()
			c.set("main/0 greet", "fails")
			pod := makePod("p").restart(policy).main(postStart("greet")).main(func(c *v1.Container) { c.Lifecycle.PreStop = does("leave") }).obj()
			w.api.create(pod)
			w.start()
			w.wait(pod, "its end, or next run", ends)
			if c.count("main/0 greet") != 1 || policy != v1.RestartPolicyNever && c.count("main/1 greet") != 1 || c.count("main/0 leave") != 1 {
				t.Errorf("hooks: %v", c.ran)
			}
			want := []string{
				"Warning FailedPostStartHook(spec.containers{main}): PostStartHook failed",
				"Normal Killing(spec.containers{main}): FailedPostStartHook",
			}
			if diff := cmp.Diff(want, append(events(w, "FailedPostStartHook"), events(w, "Killing")...)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What a hook said is shown while its container is on its way out; it was never
// shown to run.
func TestPostStartErrorIsShown(t *testing.T) {
	w := newWorld(t)
	w.runtime.Behave = ignoresTerm("main")
	c := w.commands()
	c.set("greet", "fails")
	pod := makePod("p").restart(v1.RestartPolicyAlways).main(postStart("greet")).obj()
	w.api.create(pod)
	w.start()
	got := w.waitWaiting(pod, "PostStartHookError")
	want := `Exec lifecycle hook ([greet]) for Container "main" in Pod "p_ns(uid-p)" failed - error: no good, message: "no good"`
	if m := got.Status.ContainerStatuses[0].State.Waiting.Message; m != want || got.Status.Phase != v1.PodPending {
		t.Errorf("%s: %q", got.Status.Phase, m)
	}
}

// The container is told to stop once its preStop hook is over.
func TestPreStop(t *testing.T) {
	w := newWorld(t)
	c := w.commands()
	pod := makePod("p").main(preStopping("leave")).obj()
	w.api.create(pod)
	a := w.start()
	w.waitPhase(pod, v1.PodRunning)
	if err := w.api.remove(pod, nil); err != nil {
		t.Fatal(err)
	}
	w.waitGone(pod)
	if c.count("main/0 leave") != 1 || len(events(w, "FailedPreStopHook")) != 0 {
		t.Errorf("hooks: %v, events:\n%s", c.ran, w.events)
	}
	a.waitForgotten(pod)
}

// A preStop hook has the grace period; the container then still has two seconds.
// The hook runs once, even if the grace period is shortened meanwhile, and not at
// all without one.
func TestPreStopOverruns(t *testing.T) {
	for name, c := range map[string]struct {
		grace, then int64 // seconds; then < 0: left as it is
		hooks       int
		takes       time.Duration
	}{
		"hangs":               {20, -1, 1, 22 * time.Second},
		"is given less time":  {3600, 5, 1, 7 * time.Second},
		"no time for it":      {0, -1, 0, 2 * time.Second},
		"none of it is left":  {3600, 0, 1, 2 * time.Second},
		"less than two is it": {1, -1, 1, 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.runtime.Behave = ignoresTerm("main")
			commands := w.commands()
			commands.set("leave", "hangs")
			pod := makePod("p").main(preStopping("leave")).with(func(p *v1.Pod) {
				p.Finalizers = []string{"example.com/look"}
				p.Spec.TerminationGracePeriodSeconds = &c.grace
			}).obj()
			w.api.create(pod)
			w.start()
			w.waitPhase(pod, v1.PodRunning)
			begun := w.clock.Now()
			mustDo(t, w.api.remove(pod, &c.grace))
			w.until("its end to begin", func() bool { return len(events(w, "Killing")) == 1 })
			if c.then >= 0 {
				w.until("the hook", func() bool { return commands.count("main/0 leave") == 1 })
				mustDo(t, w.api.remove(pod, &c.then))
			}
			w.stepUntil(func() bool { return len(running(w, pod)) == 0 })
			// The API rounds down to seconds, and a step is a tenth of one and may be many while we look.
			if d := w.clock.Since(begun); d < c.takes-time.Second || d > c.takes+20*time.Second {
				t.Errorf("it took %v, want about %v", d, c.takes)
			}
			if n := commands.count("main/0 leave"); n != c.hooks {
				t.Errorf("the hook was carried out %d times", n)
			}
			w.until("its failure to be told", func() bool { return len(events(w, "FailedPreStopHook")) == c.hooks })
		})
	}
}

// At a pod's end all preStop hooks begin at once; sidecars are then stopped after
// the regular containers, the last one first (KEP-753).
func TestSidecarsStopInOrder(t *testing.T) {
	w := newWorld(t)
	w.runtime.Behave = ignoresTerm("main", "s1")
	c := w.commands()
	pod := makePod("p").sidecar("s0").sidecar("s1").main(preStopping("leave")).with(func(p *v1.Pod) {
		for i := range p.Spec.InitContainers {
			preStopping("leave")(&p.Spec.InitContainers[i])
		}
		p.Spec.TerminationGracePeriodSeconds = ptr.To[int64](3600)
	}).obj()
	w.api.create(pod)
	a := w.start()
	w.waitPhase(pod, v1.PodRunning)
	mustDo(t, w.api.remove(pod, nil))
	w.until("the hooks", func() bool {
		return c.count("main/0 leave") == 1 && c.count("s0/0 leave") == 1 && c.count("s1/0 leave") == 1
	})
	a.waitIdle()
	for _, ends := range []struct {
		name string
		left []string
	}{{"main", []string{"s0/0", "s1/0"}}, {"s1", nil}} { // s0 then goes by itself
		if ends.name == "s1" {
			w.until("the last sidecar to be told to stop", func() bool { return stopCalls(a) == 2 })
		}
		if got := running(w, pod); !slices.Contains(got, "s0/0") {
			t.Fatalf("before %s has ended: %v", ends.name, got)
		}
		mustExit(t, w, pod, ends.name, 0)
		if ends.left != nil {
			a.waitIdle()
			if got := running(w, pod); !slices.Equal(got, ends.left) {
				t.Errorf("after %s: %v", ends.name, got)
			}
		}
	}
	w.waitGone(pod)
	if n := c.count("s0/0 leave"); n != 1 {
		t.Errorf("a hook was carried out %d times", n)
	}
}

// Once the grace period is over nobody waits for a turn any more.
func TestSidecarsStopWithThePod(t *testing.T) {
	w := newWorld(t)
	w.runtime.Behave = ignoresTerm("main", "s0", "s1")
	pod := makePod("p").sidecar("s0").sidecar("s1").with(func(p *v1.Pod) { p.Spec.TerminationGracePeriodSeconds = ptr.To[int64](10) }).obj()
	w.api.create(pod)
	w.start()
	w.waitPhase(pod, v1.PodRunning)
	begun := w.clock.Now()
	mustDo(t, w.api.remove(pod, nil))
	w.stepUntil(func() bool { p, _ := w.api.get(pod); return p == nil })
	if d := w.clock.Since(begun); d > 40*time.Second {
		t.Errorf("it took %v", d)
	}
}

func stopCalls(a *agent) int {
	n := 0
	for _, m := range a.conn.Calls() {
		if m == "StopContainer" {
			n++
		}
	}
	return n
}
