package node

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"

	"errand.dev/errand/internal/node/fakecri"
)

func TestInitContainersInOrder(t *testing.T) {
	w := newWorld(t)
	pod := makePod("p").init("i0", "i1").obj()
	w.api.create(pod)
	a := w.start()
	for _, name := range []string{"i0", "i1"} {
		w.until(name+" to run", func() bool { return slices.Equal(running(w, pod), []string{name + "/0"}) })
		a.waitIdle()
		mustExit(t, w, pod, name, 0)
	}
	got := w.waitPhase(pod, v1.PodRunning)
	if len(got.Status.InitContainerStatuses) != 2 || !got.Status.InitContainerStatuses[1].Ready {
		t.Errorf("%+v", got.Status.InitContainerStatuses)
	}
}

func TestInitContainerFails(t *testing.T) {
	w := newWorld(t)
	w.runtime.Behave = exits(9)
	pod := makePod("p").init("i0", "i1").obj()
	w.api.create(pod)
	w.start()
	w.waitPhase(pod, v1.PodFailed)
	if n := w.runtime.Starts("uid-p", "i1") + w.runtime.Starts("uid-p", "main"); n != 0 {
		t.Errorf("%d containers started after initialization failed", n)
	}
}

func TestSidecarEndsAfterThePod(t *testing.T) {
	w := newWorld(t)
	pod := makePod("p").sidecar("s0").sidecar("s1").obj()
	w.api.create(pod)
	a := w.start()
	w.waitPhase(pod, v1.PodRunning)
	a.waitIdle()
	mustExit(t, w, pod, "main", 0)
	w.waitPhase(pod, v1.PodSucceeded)
	killed := events(w, "Killing")
	want := []string{
		"Normal Killing(spec.initContainers{s1}): Stopping container s1",
		"Normal Killing(spec.initContainers{s0}): Stopping container s0",
	}
	if diff := cmp.Diff(want, killed); diff != "" {
		t.Error(diff)
	}
}

func TestCrashLoop(t *testing.T) {
	w := newWorld(t)
	w.runtime.Behave = exits(1)
	pod := makePod("p").restart(v1.RestartPolicyOnFailure).obj()
	w.api.create(pod)
	a := w.start()
	got := w.waitWaiting(pod, "CrashLoopBackOff")
	cs := got.Status.ContainerStatuses[0]
	if want := "back-off 10s restarting failed container=main pod=p_ns(uid-p)"; cs.State.Waiting.Message != want {
		t.Errorf("message %q", cs.State.Waiting.Message)
	}
	if got.Status.Phase != v1.PodRunning || cs.RestartCount != 1 || cs.LastTerminationState.Terminated == nil {
		t.Errorf("%+v", got.Status)
	}
	for i, delay := range []time.Duration{10, 20, 40} {
		a.waitIdle()
		w.clock.Step(delay*time.Second - time.Millisecond)
		a.waitIdle()
		if n := w.runtime.Starts("uid-p", "main"); n != i+2 {
			t.Fatalf("before %vs are over: %d starts", int(delay), n)
		}
		w.clock.Step(time.Millisecond)
		w.until("the next run", func() bool { return w.runtime.Starts("uid-p", "main") == i+3 })
	}
	a.waitIdle()
	// Of the ended runs the newest is kept, and the one before it until then.
	if dead := w.runtime.Dead("uid-p"); !slices.Equal(dead, []string{"main/3", "main/4"}) {
		t.Errorf("kept: %v", dead)
	}
	// The back-off survives the agent.
	a.kill()
	second := w.start()
	second.waitIdle()
	if got := w.waitWaiting(pod, "CrashLoopBackOff"); !strings.Contains(got.Status.ContainerStatuses[0].State.Waiting.Message, "back-off 1m20s") {
		t.Error(got.Status.ContainerStatuses[0].State.Waiting.Message)
	}
	if n := w.runtime.Starts("uid-p", "main"); n != 5 {
		t.Errorf("%d starts", n)
	}
}

func TestDelete(t *testing.T) {
	w := newWorld(t)
	pod := makePod("p").obj()
	w.api.create(pod)
	a := w.start()
	w.waitPhase(pod, v1.PodRunning)
	a.waitIdle()
	if err := w.api.remove(pod, nil); err != nil {
		t.Fatal(err)
	}
	w.waitGone(pod)
	a.waitForgotten(pod)
	if got := events(w, "Killing"); len(got) != 1 {
		t.Errorf("%v", got)
	}
	// The final status was written before the object went.
	last := lastSeen(w, pod)
	if end := last.Status.ContainerStatuses[0].State.Terminated; last.Status.Phase != v1.PodFailed || end == nil || end.ExitCode != 143 {
		t.Errorf("%+v", last.Status)
	}
	w.mustBeEmpty()
}

// A finalizer (as a Job's pods have) keeps the object: its containers stay.
func TestDeleteWithFinalizer(t *testing.T) {
	w := newWorld(t)
	pod := makePod("p").with(func(p *v1.Pod) { p.Finalizers = []string{"x/y"} }).obj()
	w.api.create(pod)
	a := w.start()
	w.waitPhase(pod, v1.PodRunning)
	if err := w.api.remove(pod, nil); err != nil {
		t.Fatal(err)
	}
	w.wait(pod, "grace 0", func(p *v1.Pod) bool { return ptr.Deref(p.DeletionGracePeriodSeconds, 1) == 0 })
	a.waitIdle()
	if dead := w.runtime.Dead("uid-p"); len(dead) != 1 {
		t.Errorf("dead containers: %v", dead)
	}
	w.api.change(pod, func(p *v1.Pod) { p.Finalizers = nil })
	if err := w.api.remove(pod, ptr.To[int64](0)); err != nil {
		t.Fatal(err)
	}
	a.waitForgotten(pod)
	w.mustBeEmpty()
}

func TestGracePeriod(t *testing.T) {
	w := newWorld(t)
	w.runtime.Behave = func(*runtimeapi.ContainerConfig) fakecri.Behaviour { return fakecri.Behaviour{IgnoresTerm: true} }
	pod := makePod("p").obj()
	w.api.create(pod)
	a := w.start()
	w.waitPhase(pod, v1.PodRunning)
	if err := w.api.remove(pod, nil); err != nil {
		t.Fatal(err)
	}
	w.until("the signal", func() bool { return slices.Contains(a.conn.Calls(), "StopContainer") && w.clock.HasWaiters() })
	w.clock.Step(20 * time.Second)
	a.waitIdle()
	if len(running(w, pod)) != 1 {
		t.Fatal("killed before its time")
	}
	// The user loses patience: the period is cut to the least there is.
	if err := w.api.remove(pod, ptr.To[int64](1)); err != nil {
		t.Fatal(err)
	}
	w.until("the second signal", func() bool {
		return len(slices.DeleteFunc(a.conn.Calls(), func(c string) bool { return c != "StopContainer" })) == 2
	})
	w.stepUntil(func() bool { p, _ := w.api.get(pod); return p == nil })
	if end := lastSeen(w, pod).Status.ContainerStatuses[0].State.Terminated; end == nil || end.ExitCode != 137 {
		t.Errorf("%+v", end)
	}
}

func TestForceDelete(t *testing.T) {
	w := newWorld(t)
	pod := makePod("p").obj()
	w.api.create(pod)
	a := w.start()
	w.waitPhase(pod, v1.PodRunning)
	if err := w.api.remove(pod, ptr.To[int64](0)); err != nil {
		t.Fatal(err)
	}
	a.waitForgotten(pod)
	if len(running(w, pod)) != 0 {
		t.Error("still runs")
	}
	w.mustBeEmpty()
}

func TestActiveDeadline(t *testing.T) {
	w := newWorld(t)
	pod := makePod("p").with(func(p *v1.Pod) { p.Spec.ActiveDeadlineSeconds = ptr.To[int64](60) }).obj()
	w.api.create(pod)
	a := w.start()
	w.waitPhase(pod, v1.PodRunning)
	a.waitIdle()
	w.clock.Step(60 * time.Second)
	got := w.waitPhase(pod, v1.PodFailed)
	if got.Status.Reason != "DeadlineExceeded" || got.Status.Message != "Pod was active on the node longer than the specified deadline" {
		t.Errorf("%s: %s", got.Status.Reason, got.Status.Message)
	}
	if !w.events.has("Normal DeadlineExceeded: Pod was active on the node longer than the specified deadline") {
		t.Error(w.events)
	}
}

func TestSysctlsThatAreNotSafeAreRefused(t *testing.T) {
	w := newWorld(t)
	pod := makePod("p").with(func(p *v1.Pod) {
		p.Spec.SecurityContext = &v1.PodSecurityContext{Sysctls: []v1.Sysctl{{Name: "kernel.msgmax", Value: "65536"}}}
	}).obj()
	w.api.create(pod)
	w.start()
	got := w.waitPhase(pod, v1.PodFailed)
	if want := `Pod was rejected: forbidden sysctl: "kernel.msgmax" not allowlisted`; got.Status.Reason != "SysctlForbidden" || got.Status.Message != want {
		t.Errorf("%s: %s", got.Status.Reason, got.Status.Message)
	}
}

func TestRefused(t *testing.T) {
	w := newWorld(t)
	pod := makePod("p").main(func(c *v1.Container) { c.VolumeDevices = []v1.VolumeDevice{{}} }).with(func(p *v1.Pod) {
		p.Spec.Volumes = []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{NFS: &v1.NFSVolumeSource{Server: "s", Path: "/"}}}}
	}).obj()
	w.api.create(pod)
	a := w.start()
	got := w.waitPhase(pod, v1.PodFailed)
	for _, part := range []string{"Pod was rejected", "spec.containers[0].volumeDevices", "nfs"} {
		if got.Status.Reason != "UnsupportedPodSpec" || !strings.Contains(got.Status.Message, part) {
			t.Errorf("%s: %s", got.Status.Reason, got.Status.Message)
		}
	}
	// Another agent leaves it as it is.
	a.kill()
	second := w.start()
	second.waitIdle()
	if again, _ := w.api.get(pod); again.ResourceVersion != got.ResourceVersion {
		t.Error("the status was written again")
	}
	if err := w.api.remove(pod, nil); err != nil {
		t.Fatal(err)
	}
	w.waitGone(pod)
}

func TestTerminationMessage(t *testing.T) {
	w := newWorld(t)
	pod := makePod("p").container(container("logger")).with(func(p *v1.Pod) {
		p.Spec.Containers[1].TerminationMessagePolicy = v1.TerminationMessageFallbackToLogsOnError
	}).obj()
	w.api.create(pod)
	a := w.start()
	w.waitPhase(pod, v1.PodRunning)
	a.waitIdle()
	mustWrite(t, hostPath(w.runtime.Config("uid-p", "main"), "/dev/termination-log"), "last words")
	mustWrite(t, filepath.Join(w.runtime.SandboxConfig("uid-p").LogDirectory, "logger/0.log"),
		"2026-07-01T12:00:00.000000000Z stderr F no such file\n")
	mustExit(t, w, pod, "main", 1)
	mustExit(t, w, pod, "logger", 1)
	got := w.waitPhase(pod, v1.PodFailed)
	for i, want := range []string{"no such file\n", "last words"} { // sorted by name: logger, main
		if m := got.Status.ContainerStatuses[i].State.Terminated.Message; m != want {
			t.Errorf("message %q, want %q", m, want)
		}
	}
}

// A path that isn't absolute is one from the container's root, as volumes' are.
func TestTerminationMessageAtARelativePath(t *testing.T) {
	w := newWorld(t)
	pod := makePod("p").with(func(p *v1.Pod) { p.Spec.Containers[0].TerminationMessagePath = "tmp/../message" }).obj()
	w.api.create(pod)
	w.start()
	w.waitPhase(pod, v1.PodRunning)
	mustWrite(t, hostPath(w.runtime.Config("uid-p", "main"), "/message"), "last words")
	mustExit(t, w, pod, "main", 1)
	if m := w.waitPhase(pod, v1.PodFailed).Status.ContainerStatuses[0].State.Terminated.Message; m != "last words" {
		t.Errorf("message %q", m)
	}
}

func TestHostsFile(t *testing.T) {
	w := newWorld(t)
	pod := makePod("p").with(func(p *v1.Pod) {
		p.Spec.HostAliases = []v1.HostAlias{{IP: "1.2.3.4", Hostnames: []string{"a", "b"}}}
	}).obj()
	w.api.create(pod)
	w.start()
	got := w.waitPhase(pod, v1.PodRunning)
	data, err := os.ReadFile(hostPath(w.runtime.Config("uid-p", "main"), "/etc/hosts"))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"# Kubernetes-managed hosts file.\n", got.Status.PodIP + "\tp\n", "# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"} {
		if !strings.Contains(string(data), line) {
			t.Errorf("%q is missing in:\n%s", line, data)
		}
	}
}

func TestPodsOfOtherNodesAreLeftAlone(t *testing.T) {
	w := newWorld(t)
	other := makePod("other").with(func(p *v1.Pod) { p.Spec.NodeName = "node-2" }).obj()
	unbound := makePod("unbound").with(func(p *v1.Pod) { p.Spec.NodeName = "" }).obj()
	w.api.create(other)
	w.api.create(unbound)
	w.api.create(makePod("mine").obj())
	a := w.start()
	w.waitPhase(makePod("mine").obj(), v1.PodRunning)
	w.api.change(unbound, func(p *v1.Pod) { p.Spec.NodeName = "node-1" })
	w.waitPhase(unbound, v1.PodRunning)
	a.waitIdle()
	if n := w.runtime.Starts("uid-other", "main"); n != 0 {
		t.Error("another node's pod was started")
	}
}

// A change that waits for the API is replaced by newer ones: a burst is one or
// two writes, not many.
func TestFewWrites(t *testing.T) {
	w := newWorld(t)
	w.runtime.Behave = exits(0)
	pod := makePod("p").init("i0", "i1", "i2").obj()
	w.api.create(pod)
	a := w.start()
	w.waitPhase(pod, v1.PodSucceeded)
	a.waitIdle()
	if n := w.api.written(); n > 2 {
		t.Errorf("%d writes for a pod that was over at once", n)
	}
}

// What somebody else writes over the node's status is put right.
func TestStatusIsReconciled(t *testing.T) {
	w := newWorld(t)
	pod := makePod("p").obj()
	w.api.create(pod)
	a := w.start()
	w.waitPhase(pod, v1.PodRunning)
	a.waitIdle()
	w.api.change(pod, func(p *v1.Pod) { p.Status.ContainerStatuses = nil })
	w.wait(pod, "container statuses", func(p *v1.Pod) bool { return len(p.Status.ContainerStatuses) == 1 })
}

func running(w *world, pod *v1.Pod) []string { return w.runtime.Running(string(pod.UID)) }

func mustExit(t *testing.T, w *world, pod *v1.Pod, name string, code int32) {
	t.Helper()
	if err := w.runtime.Exit(string(pod.UID), name, code); err != nil {
		t.Fatal(err)
	}
}

func mustWrite(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func events(w *world, reason string) []string {
	return slices.DeleteFunc(w.events.all(), func(e string) bool { return !strings.Contains(e, " "+reason+"(") })
}

func lastSeen(w *world, pod *v1.Pod) *v1.Pod {
	w.api.mu.Lock()
	defer w.api.mu.Unlock()
	var last *v1.Pod
	for _, e := range w.api.history {
		if p := e.Object.(*v1.Pod); p.UID == pod.UID {
			last = p
		}
	}
	return last
}

func hostPath(c *runtimeapi.ContainerConfig, containerPath string) string {
	for _, m := range c.Mounts {
		if m.ContainerPath == containerPath {
			return m.HostPath
		}
	}
	return ""
}

// What is served of pods doesn't wait for the API.
func TestLatestStatusIsServed(t *testing.T) {
	w := newWorld(t)
	pod := makePod("p").obj()
	w.api.create(pod)
	a := w.start()
	w.waitPhase(pod, v1.PodRunning)
	a.waitIdle()
	w.api.setDown(true)
	mustExit(t, w, pod, "main", 0)
	w.until("the end to be served", func() bool {
		p, ok := a.node.Pod("ns", "p")
		return ok && p.Status.Phase == v1.PodSucceeded && len(a.node.Pods()) == 1
	})
	if p, _ := w.api.get(pod); p.Status.Phase != v1.PodRunning {
		t.Error("the API has it already")
	}
	if _, ok := a.node.Pod("ns", "other"); ok {
		t.Error("served a pod that doesn't exist")
	}
}
