package node

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"

	"errand.dev/errand/internal/node/fakecri"
)

// restartsAll makes the main container restart all when it ends with code 42.
func restartsAll(c *v1.Container) {
	c.RestartPolicy = ptr.To(v1.ContainerRestartPolicyNever)
	c.RestartPolicyRules = []v1.ContainerRestartRule{{
		Action:    v1.ContainerRestartRuleActionRestartAllContainers,
		ExitCodes: &v1.ContainerRestartRuleOnExitCodes{Operator: v1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{42}},
	}}
}

// ends has containers end at once, by their names and numbers ("main/0"), and lets the others run.
func ends(codes map[string]int32) func(*runtimeapi.ContainerConfig) fakecri.Behaviour {
	return func(c *runtimeapi.ContainerConfig) fakecri.Behaviour {
		code, exits := codes[fmt.Sprintf("%s/%d", c.Metadata.Name, c.Metadata.Attempt)]
		return fakecri.Behaviour{Exits: exits, ExitCode: code}
	}
}

// All containers are restarted in place: in the same sandbox, the others without their preStop hooks, the init containers before the others, and
// with the logs and ends of the runs before.
func TestRestartAllContainers(t *testing.T) {
	w := newWorld(t)
	commands := w.commands()
	w.runtime.Behave = func(c *runtimeapi.ContainerConfig) fakecri.Behaviour {
		return fakecri.Behaviour{Exits: c.Metadata.Name == "init", IgnoresTerm: c.Metadata.Name == "side"}
	}
	side := container("side")
	preStopping("bye")(&side)
	pod := makePod("p").init("init").sidecar("proxy").main(restartsAll).container(side).obj()
	w.api.create(pod)
	a := w.start()
	before := w.wait(pod, "running", func(p *v1.Pod) bool { return p.Status.Phase == v1.PodRunning && condition(p, v1.PodReady) == "True " })
	if got := condition(before, v1.AllContainersRestarting); got != "False " {
		t.Errorf("before, AllContainersRestarting is %s", got)
	}
	a.waitIdle()
	if err := w.runtime.Exit("uid-p", "main", 42); err != nil {
		t.Fatal(err)
	}
	w.wait(pod, "marked", func(p *v1.Pod) bool {
		return strings.HasPrefix(condition(p, v1.AllContainersRestarting), "True RestartAllContainersStarted: ")
	})
	w.stepUntil(func() bool { return w.runtime.Starts("uid-p", "side") == 2 })
	after := w.wait(pod, "restarted", func(p *v1.Pod) bool {
		return condition(p, v1.AllContainersRestarting) == "False " && condition(p, v1.PodReady) == "True "
	})
	a.waitIdle()
	var got []string
	for _, s := range slices.Concat(after.Status.InitContainerStatuses, after.Status.ContainerStatuses) {
		end := s.LastTerminationState.Terminated
		if end == nil {
			end = &v1.ContainerStateTerminated{ExitCode: -1}
		}
		got = append(got, fmt.Sprintf("%s %d after %d", s.Name, s.RestartCount, end.ExitCode))
	}
	if want := []string{"init 1 after 0", "proxy 1 after 143", "main 1 after 42", "side 1 after 137"}; !slices.Equal(got, want) {
		t.Errorf("the containers are %q, want %q", got, want)
	}
	if after.Status.PodIP != before.Status.PodIP || condition(after, v1.PodInitialized) != "True " {
		t.Errorf("its address was %s and is %s, and it is initialized: %s", before.Status.PodIP, after.Status.PodIP, condition(after, v1.PodInitialized))
	}
	if sandboxes, _ := w.runtime.Sandboxes(); sandboxes != 1 {
		t.Errorf("there are %d sandboxes", sandboxes)
	}
	if n := commands.count("side/0 bye"); n != 0 {
		t.Errorf("the preStop hook was carried out %d times", n)
	}
	if !w.events.has("): All containers of the pod will be restarted") {
		t.Errorf("the events are %s", w.events)
	}
}

// A container that restarts all of them again and again is put off as others are that keep ending.
func TestRestartAllBacksOff(t *testing.T) {
	w := newWorld(t)
	w.runtime.Behave = ends(map[string]int32{"main/0": 42, "main/1": 42, "init/0": 0, "init/1": 0, "init/2": 0})
	pod := makePod("p").init("init").main(restartsAll).obj()
	w.api.create(pod)
	a := w.start()
	got := w.wait(pod, "put off", func(p *v1.Pod) bool {
		s := p.Status.InitContainerStatuses
		return len(s) == 1 && s[0].State.Waiting != nil && s[0].State.Waiting.Reason == "CrashLoopBackOff"
	})
	if main := got.Status.ContainerStatuses[0].State.Waiting; main == nil || main.Reason != "RestartingAllContainers" {
		t.Errorf("the main container is %+v", got.Status.ContainerStatuses[0].State)
	}
	if got := condition(got, v1.AllContainersRestarting); !strings.HasPrefix(got, "True ") {
		t.Errorf("meanwhile, AllContainersRestarting is %s", got)
	}
	// Another agent goes on with it.
	a.waitIdle()
	a.kill()
	w.start()
	w.stepUntil(func() bool { return w.runtime.Starts("uid-p", "main") == 3 })
	w.wait(pod, "running", func(p *v1.Pod) bool {
		return p.Status.Phase == v1.PodRunning && p.Status.ContainerStatuses[0].RestartCount == 2 && condition(p, v1.AllContainersRestarting) == "False "
	})
}

// Whenever the agent dies, each container is started once in each round.
func TestKilledWhileRestartingAll(t *testing.T) {
	for n := 1; ; n++ {
		survived := false
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			w := newWorld(t)
			w.runtime.Behave = ends(map[string]int32{"init/0": 0, "init/1": 0, "main/1": 0, "side/1": 0})
			pod := makePod("p").init("init").sidecar("proxy").main(restartsAll).container(container("side")).obj()
			w.api.create(pod)
			first := w.start()
			w.waitPhase(pod, v1.PodRunning)
			first.waitIdle()
			first.conn.DieAfter(n)
			if err := w.runtime.Exit("uid-p", "main", 42); err != nil {
				t.Fatal(err)
			}
			w.waitOrDeath(first, pod, func(p *v1.Pod) bool { return p.Status.Phase == v1.PodSucceeded })
			survived = first.restsAlive()
			first.kill()
			second := w.start()
			w.waitPhase(pod, v1.PodSucceeded)
			second.waitIdle()
			for _, name := range []string{"init", "proxy", "main", "side"} {
				if s := w.runtime.Starts("uid-p", name); s != 2 {
					t.Errorf("%s was started %d times", name, s)
				}
			}
		})
		if survived || t.Failed() {
			t.Logf("%d moments to die at", n-1)
			return
		}
	}
}
