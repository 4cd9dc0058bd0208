package node

import (
	"errors"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
)

// takes makes a container guaranteed to get so much.
func takes(cpu, memory string) func(*v1.Container) {
	return func(c *v1.Container) {
		list := v1.ResourceList{v1.ResourceCPU: resource.MustParse(cpu), v1.ResourceMemory: resource.MustParse(memory)}
		c.Resources = v1.ResourceRequirements{Requests: list, Limits: list.DeepCopy()}
	}
}

// resizes asks for other resources of the pod's first container.
func (w *world) resizes(pod *v1.Pod, cpu, memory string) {
	w.api.change(pod, func(p *v1.Pod) { takes(cpu, memory)(&p.Spec.Containers[0]) })
}

// has tells whether the pod's first container has the resources, and that nothing is left to do.
func has(cpu, memory string) func(*v1.Pod) bool {
	return func(p *v1.Pod) bool {
		s := p.Status.ContainerStatuses
		if len(s) == 0 || s[0].Resources == nil || p.Status.ObservedGeneration != p.Generation || condition(p, v1.PodResizeInProgress) != "" || condition(p, v1.PodResizePending) != "" {
			return false
		}
		return s[0].Resources.Limits.Cpu().String() == cpu && s[0].Resources.Limits.Memory().String() == memory && s[0].AllocatedResources.Cpu().String() == cpu
	}
}

// condition is the reason and message of a condition that is true, "" if there is none.
func condition(p *v1.Pod, kind v1.PodConditionType) string {
	if _, c := podutil.GetPodCondition(&p.Status, kind); c != nil {
		return strings.TrimSuffix(string(c.Status)+" "+c.Reason+": "+c.Message, ": ")
	}
	return ""
}

func TestResize(t *testing.T) {
	w := newWorld(t)
	pod := makePod("p").restart(v1.RestartPolicyAlways).main(takes("1", "1Gi")).main(func(c *v1.Container) {
		c.ResizePolicy = []v1.ContainerResizePolicy{{ResourceName: v1.ResourceMemory, RestartPolicy: v1.RestartContainer}}
	}).obj()
	w.api.create(pod)
	a := w.start()
	w.wait(pod, "its first resources", has("1", "1Gi"))
	first := running(w, pod)

	// More CPU without a restart, although the pod's cgroup had less.
	w.resizes(pod, "2", "1Gi")
	w.wait(pod, "more CPU", has("2", "1Gi"))
	sandbox := w.runtime.SandboxConfig(string(pod.UID)).Linux.Resources
	if r := running(w, pod); !slices.Equal(r, first) || sandbox.CpuQuota != 200_000 {
		t.Errorf("%v run, where %v did; the pod has %v", r, first, sandbox)
	}
	// More memory with one.
	w.resizes(pod, "2", "2Gi")
	w.wait(pod, "more memory", has("2", "2Gi"))
	w.until("the new run", func() bool { return slices.Equal(running(w, pod), []string{"main/1"}) })
	if c := w.runtime.Config(string(pod.UID), "main"); c.Linux.Resources.MemoryLimitInBytes != 2<<30 {
		t.Errorf("it was made with %v", c.Linux.Resources)
	}
	if log := w.events.String(); strings.Count(log, "ResizeCompleted:") != 2 || strings.Count(log, "ResizeStarted:") != 2 {
		t.Errorf("events:\n%s", w.events)
	}
	// Another agent finds nothing to do.
	a.kill()
	a = w.start()
	a.waitIdle()
	if calls := a.conn.Calls(); len(calls) > 0 {
		t.Errorf("a new agent called %v", calls)
	}
}

// What there is no room for waits, is told, and is given when another pod has ended.
func TestResizeDeferred(t *testing.T) {
	w := newWorld(t)
	pod, other := makePod("p").main(takes("1", "1Gi")).obj(), makePod("other").main(takes("2", "1Gi")).obj()
	w.api.create(pod)
	w.api.create(other)
	a := w.start()
	w.wait(pod, "its first resources", has("1", "1Gi"))
	w.wait(other, "its resources", has("2", "1Gi"))
	w.resizes(pod, "3", "1Gi")
	waits := func(p *v1.Pod) bool {
		return strings.HasPrefix(condition(p, v1.PodResizePending), "True Deferred: Node didn't have enough resource: cpu") && p.Status.ObservedGeneration == 2
	}
	got := w.wait(pod, "the refusal", waits)
	if s := got.Status.ContainerStatuses[0]; s.AllocatedResources.Cpu().String() != "1" || s.Resources.Limits.Cpu().String() != "1" {
		t.Errorf("meanwhile it has %+v", s)
	}
	// Also after a restart of the agent.
	a.kill()
	a = w.start()
	a.waitIdle()
	if got, _ := w.api.get(pod); !waits(got) {
		t.Errorf("then it has %+v", got.Status.Conditions)
	}
	mustExit(t, w, other, "main", 0)
	w.wait(pod, "what the other had", has("3", "1Gi"))
	w.resizes(pod, "5", "1Gi")
	w.wait(pod, "that it is too much", func(p *v1.Pod) bool {
		return strings.HasPrefix(condition(p, v1.PodResizePending), "True Infeasible: Node didn't have enough capacity: cpu")
	})
	if !w.events.has("ResizeDeferred:") || strings.Count(w.events.String(), "ResizeInfeasible:") != 1 {
		t.Errorf("events:\n%s", w.events)
	}
}

// Memory in use isn't taken away, and an error of the runtime is told and overcome.
func TestResizeError(t *testing.T) {
	w := newWorld(t)
	pod := makePod("p").restart(v1.RestartPolicyAlways).main(takes("1", "1Gi")).container(container("other")).obj()
	w.api.create(pod)
	w.start()
	w.wait(pod, "its first resources", has("1", "1Gi"))
	w.runtime.Uses(string(pod.UID), "main", 600<<20)
	w.resizes(pod, "1", "512Mi")
	const inUse = "True Error: container main: attempting to set memory limit (536870912) below current usage (629145600)"
	w.wait(pod, "that it is in use", func(p *v1.Pod) bool { return condition(p, v1.PodResizeInProgress) == inUse })
	// The rest of the pod goes on.
	mustExit(t, w, pod, "other", 1)
	w.until("another run", func() bool { return slices.Contains(running(w, pod), "other/1") })
	w.runtime.Uses(string(pod.UID), "main", 0)
	w.runtime.Fail("UpdateContainerResources", errors.New("the kernel says no"))
	w.stepUntil(func() bool {
		p, _ := w.api.get(pod)
		return condition(p, v1.PodResizeInProgress) == "True Error: container main: the kernel says no"
	})
	w.runtime.Fail("UpdateContainerResources", nil)
	w.stepUntil(func() bool {
		p, _ := w.api.get(pod)
		return has("1", "512Mi")(p)
	})
}

// An agent that dies at any call of a resize is followed by one that completes it.
func TestResizeDeath(t *testing.T) {
	for die := 1; ; die++ {
		w := newWorld(t)
		pod := makePod("p").main(takes("1", "1Gi")).obj()
		w.api.create(pod)
		a := w.start()
		w.wait(pod, "its first resources", has("1", "1Gi"))
		a.waitIdle()
		a.conn.DieAfter(die)
		w.resizes(pod, "2", "512Mi")
		w.waitOrDeath(a, pod, has("2", "512Mi"))
		survived := true
		select {
		case <-a.conn.Died():
			survived = false
		default:
		}
		a.kill()
		a = w.start()
		<-a.node.Ready()
		w.wait(pod, "its new resources", has("2", "512Mi"))
		if got := w.runtime.SandboxConfig(string(pod.UID)).Linux.Resources; got.CpuQuota != 200_000 || got.MemoryLimitInBytes != 512<<20 {
			t.Fatalf("after death at call %d the pod has %v", die, got)
		}
		if survived {
			break
		}
	}
}

// A pod that was bound to a node without room, past the binder, is refused; with room again the next one isn't.
func TestNoRoom(t *testing.T) {
	w := newWorld(t)
	first, second, third := makePod("first").main(takes("3", "1Gi")).obj(), makePod("second").main(takes("2", "1Gi")).obj(), makePod("third").main(takes("2", "1Gi")).obj()
	w.api.create(first)
	a := w.start()
	w.waitPhase(first, v1.PodRunning)
	w.api.create(second)
	got := w.waitPhase(second, v1.PodFailed)
	if got.Status.Reason != "OutOfcpu" || !strings.HasPrefix(got.Status.Message, "Pod was rejected: Node didn't have enough resource: cpu, requested: 2000, used: 3000") {
		t.Errorf("%s: %s", got.Status.Reason, got.Status.Message)
	}
	// One that an agent before has admitted stays, however much there is.
	a.kill()
	w.start()
	w.wait(first, "its resources", has("3", "1Gi"))
	mustExit(t, w, first, "main", 0)
	w.waitPhase(first, v1.PodSucceeded)
	w.api.create(third)
	w.waitPhase(third, v1.PodRunning)
}
