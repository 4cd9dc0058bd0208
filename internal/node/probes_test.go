package node

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	utilexec "k8s.io/utils/exec"
	"k8s.io/utils/ptr"

	"errand.dev/errand/internal/node/fakecri"
)

// commands says how commands in containers end: "works", "fails", "hangs" or, by
// what a test set, one of them.
type commands struct {
	mu   sync.Mutex
	ends map[string]string
	ran  []string // container/attempt command
}

func (w *world) commands() *commands {
	c := &commands{ends: map[string]string{}}
	w.runtime.Exec = c.exec
	return c
}

// set makes a command end like another, in all containers or, as "container/attempt
// command", in one run of one.
func (c *commands) set(command, like string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ends[command] = like
}

func (c *commands) exec(ctx context.Context, e fakecri.Exec) error {
	name := e.Command[0]
	c.mu.Lock()
	what := e.Container + "/" + string(rune('0'+e.Attempt)) + " " + name
	c.ran = append(c.ran, what)
	for _, n := range []string{name, what} {
		if like, ok := c.ends[n]; ok {
			name = like
		}
	}
	c.mu.Unlock()
	switch name {
	case "fails":
		return utilexec.CodeExitError{Err: errors.New("no good"), Code: 1}
	case "hangs":
		<-ctx.Done()
	}
	return nil
}

// count returns how often the command ran, as "container/attempt command".
func (c *commands) count(what string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, r := range c.ran {
		if r == what {
			n++
		}
	}
	return n
}

// asks is a probe by command, every ten seconds.
func asks(command string) *v1.Probe {
	return &v1.Probe{
		ProbeHandler:  v1.ProbeHandler{Exec: &v1.ExecAction{Command: []string{command}}},
		PeriodSeconds: 10, TimeoutSeconds: 1, SuccessThreshold: 1, FailureThreshold: 1,
	}
}

func (w *world) waitReady(pod *v1.Pod, ready bool) *v1.Pod {
	w.t.Helper()
	return w.wait(pod, "readiness", func(p *v1.Pod) bool {
		_, c := podutil.GetPodCondition(&p.Status, v1.PodReady)
		return p.Status.Phase == v1.PodRunning && c != nil && (c.Status == v1.ConditionTrue) == ready
	})
}

// Readiness is the probe's, in the container's status and the pod's conditions,
// and flips as it does.
func TestReadiness(t *testing.T) {
	w := newWorld(t)
	c := w.commands()
	c.set("ready?", "fails")
	pod := makePod("p").main(func(c *v1.Container) { c.ReadinessProbe = asks("ready?") }).obj()
	w.api.create(pod)
	w.start()
	got := w.waitReady(pod, false)
	if s := got.Status.ContainerStatuses[0]; s.Ready || !*s.Started {
		t.Errorf("%+v", s)
	}
	_, condition := podutil.GetPodCondition(&got.Status, v1.ContainersReady)
	if condition.Reason != "ContainersNotReady" || condition.Message != "containers with unready status: [main]" {
		t.Errorf("%+v", condition)
	}
	w.until("the failure to be told", func() bool {
		return w.events.has("Warning Unhealthy(spec.containers{main}): Readiness probe failed: no good")
	})
	c.set("ready?", "works")
	w.stepUntil(func() bool { p, _ := w.api.get(pod); return p.Status.ContainerStatuses[0].Ready })
	if got := w.waitReady(pod, true); got.Status.ContainerStatuses[0].RestartCount != 0 {
		t.Errorf("%+v", got.Status)
	}
	c.set("ready?", "hangs")
	w.stepUntil(func() bool { p, _ := w.api.get(pod); return !p.Status.ContainerStatuses[0].Ready })
	if want := `Readiness probe failed: command timed out: "ready?" timed out after 1s`; !w.events.has(want) {
		t.Error(w.events)
	}
}

// A container that fails its liveness or startup probe is killed, with the grace
// period that the probe may have, and restarted if its policy says so.
func TestFailedProbeKills(t *testing.T) {
	for name, c := range map[string]struct {
		policy  v1.RestartPolicy
		set     func(*v1.Container, *v1.Probe)
		killing string
		ends    func(*v1.Pod) bool
	}{
		"liveness, restarted": {v1.RestartPolicyAlways, func(c *v1.Container, p *v1.Probe) { c.LivenessProbe = p },
			"Container main failed liveness probe, will be restarted",
			func(p *v1.Pod) bool {
				return len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].RestartCount == 1
			}},
		"startup, restarted": {v1.RestartPolicyOnFailure, func(c *v1.Container, p *v1.Probe) { c.StartupProbe = p },
			"Container main failed startup probe, will be restarted",
			func(p *v1.Pod) bool {
				return len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].RestartCount == 1
			}},
		"liveness, for good": {v1.RestartPolicyNever, func(c *v1.Container, p *v1.Probe) { c.LivenessProbe = p },
			"Container main failed liveness probe",
			func(p *v1.Pod) bool { return p.Status.Phase == v1.PodFailed }},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.runtime.Behave = ignoresTerm("main")
			w.commands()
			probe := asks("fails")
			probe.TerminationGracePeriodSeconds = ptr.To[int64](5)
			pod := makePod("p").restart(c.policy).main(func(m *v1.Container) { c.set(m, probe) }).obj()
			w.api.create(pod)
			w.start()
			w.until("the kill", func() bool { return len(events(w, "Killing")) == 1 })
			begun := w.clock.Now()
			w.stepUntil(func() bool { p, _ := w.api.get(pod); return c.ends(p) })
			if d := w.clock.Since(begun); d < 5*time.Second || d > 20*time.Second {
				t.Errorf("it took %v, not the probe's five seconds", d)
			}
			if want, got := "Normal Killing(spec.containers{main}): "+c.killing, events(w, "Killing")[0]; got != want {
				t.Errorf("%q, want %q", got, want)
			}
		})
	}
}

// ignoresTerm makes the named containers outlive SIGTERM.
func ignoresTerm(names ...string) func(*runtimeapi.ContainerConfig) fakecri.Behaviour {
	return func(c *runtimeapi.ContainerConfig) fakecri.Behaviour {
		return fakecri.Behaviour{IgnoresTerm: slices.Contains(names, c.Metadata.Name)}
	}
}

// A sidecar that hasn't passed its startup probe keeps the next init container
// waiting, and one that isn't ready the pod from being ready.
func TestSidecarProbes(t *testing.T) {
	w := newWorld(t)
	c := w.commands()
	c.set("started?", "fails")
	c.set("ready?", "fails")
	pod := makePod("p").sidecar("s").init("i").with(func(p *v1.Pod) {
		s := &p.Spec.InitContainers[0]
		s.StartupProbe, s.ReadinessProbe = asks("started?"), asks("ready?")
		s.StartupProbe.FailureThreshold = 1000
	}).obj()
	w.api.create(pod)
	a := w.start()
	w.until("the first probe", func() bool { return c.count("s/0 started?") == 1 })
	a.waitIdle()
	if got := running(w, pod); !slices.Equal(got, []string{"s/0"}) {
		t.Fatalf("%v run", got)
	}
	c.set("started?", "works")
	w.stepUntil(func() bool { return slices.Equal(running(w, pod), []string{"i/0", "s/0"}) })
	a.waitIdle()
	mustExit(t, w, pod, "i", 0)
	w.waitReady(pod, false)
	c.set("ready?", "works")
	w.stepUntil(func() bool { return c.count("s/0 ready?") > 1 })
	w.waitReady(pod, true)
}

// A restart of the agent casts no doubt on a container: it is as ready as it was,
// its startup probe isn't asked again, and it isn't restarted.
func TestProbesAfterRestart(t *testing.T) {
	w := newWorld(t)
	c := w.commands()
	pod := makePod("p").main(func(c *v1.Container) {
		c.StartupProbe, c.LivenessProbe, c.ReadinessProbe = asks("started?"), asks("alive?"), asks("ready?")
	}).obj()
	w.api.create(pod)
	a := w.start()
	got := w.waitReady(pod, true)
	a.waitIdle()
	w.clock.Step(time.Second)
	a.kill()
	c.set("ready?", "hangs") // the first answer is long in coming
	second := w.start()
	second.waitIdle()
	w.stepUntil(func() bool { return c.count("main/0 ready?") == 2 })
	again, _ := w.api.get(pod)
	if diff := cmp.Diff(got.Status.ContainerStatuses, again.Status.ContainerStatuses); diff != "" {
		t.Error(diff)
	}
	w.stepUntil(func() bool { p, _ := w.api.get(pod); return !p.Status.ContainerStatuses[0].Ready })
	if n := c.count("main/0 started?"); n != 1 {
		t.Errorf("asked %d times whether it has started", n)
	}
}

// A pod that ends isn't killed for its liveness, and its probes end with it.
func TestProbesOfAnEndingPod(t *testing.T) {
	w := newWorld(t)
	w.runtime.Behave = ignoresTerm("main")
	c := w.commands()
	const grace = 10000 // seconds: it is over when the test says so, however long probes take
	pod := makePod("p").main(func(c *v1.Container) { c.LivenessProbe, c.ReadinessProbe = asks("alive?"), asks("ready?") }).
		with(func(p *v1.Pod) { p.Spec.TerminationGracePeriodSeconds = ptr.To[int64](grace) }).obj()
	w.api.create(pod)
	a := w.start()
	w.waitReady(pod, true)
	w.until("its first answer that it is alive", func() bool { return c.count("main/0 alive?") == 1 })
	c.set("alive?", "fails")
	c.set("ready?", "fails")
	if err := w.api.remove(pod, nil); err != nil {
		t.Fatal(err)
	}
	w.until("its end to begin", func() bool { return len(events(w, "Killing")) == 1 })
	w.stepUntil(func() bool { p, _ := w.api.get(pod); return !p.Status.ContainerStatuses[0].Ready })
	w.clock.Step(grace * time.Second)
	w.stepUntil(func() bool { p, _ := w.api.get(pod); return p == nil })
	a.waitForgotten(pod)
	if got := strings.Join(events(w, "Unhealthy"), "\n"); strings.Contains(got, "Liveness") || !strings.Contains(got, "Readiness") {
		t.Error(got)
	}
	before := len(w.events.all())
	w.clock.Step(time.Minute)
	a.waitIdle()
	if got := w.events.all(); len(got) != before {
		t.Errorf("after its end: %v", got[before:])
	}
}
