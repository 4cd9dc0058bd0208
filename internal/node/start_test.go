package node

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"errand.dev/errand/internal/node/fakecri"
)

func TestPullAlways(t *testing.T) {
	w := newWorld(t)
	w.runtime.Behave = exits(0)
	pod := makePod("p").main(func(c *v1.Container) { c.ImagePullPolicy = v1.PullAlways }).obj()
	w.api.create(pod)
	a := w.start()
	w.waitPhase(pod, v1.PodSucceeded)
	a.waitIdle()
	if diff := cmp.Diff([]string{
		`Normal Pulling(spec.containers{main}): Pulling image "img:1"`,
		`Normal Pulled(spec.containers{main}): Successfully pulled image "img:1" in 0s (0s including waiting). Image size: 1234 bytes.`,
		`Normal Created(spec.containers{main}): Container created`,
		`Normal Started(spec.containers{main}): Container started`,
	}, w.events.all()); diff != "" {
		t.Error(diff)
	}
}

func TestPullFails(t *testing.T) {
	w := newWorld(t)
	w.runtime.PullFails("gone:1", errors.New("no such image"))
	pod := makePod("p").main(func(c *v1.Container) { c.Image = "gone:1" }).obj()
	w.api.create(pod)
	a := w.start()
	got := w.waitWaiting(pod, "ErrImagePull")
	if m := got.Status.ContainerStatuses[0].State.Waiting.Message; m != "rpc error: code = NotFound desc = no such image" {
		t.Error(m)
	}
	a.waitIdle()
	w.clock.Step(5 * time.Second)
	got = w.waitWaiting(pod, "ImagePullBackOff")
	if m := got.Status.ContainerStatuses[0].State.Waiting.Message; m !=
		`Back-off pulling image "gone:1": ErrImagePull: rpc error: code = NotFound desc = no such image` {
		t.Error(m)
	}
	for _, want := range []string{
		`Normal Pulling(spec.containers{main}): Pulling image "gone:1"`,
		`Warning Failed(spec.containers{main}): Failed to pull image "gone:1": rpc error: code = NotFound desc = no such image`,
		`Warning Failed(spec.containers{main}): Error: ErrImagePull`,
		`Normal BackOff(spec.containers{main}): Back-off pulling image "gone:1"`,
		`Warning Failed(spec.containers{main}): Error: ImagePullBackOff`,
	} {
		if !w.events.has(want) {
			t.Errorf("missing %s in:\n%s", want, w.events)
		}
	}
	// Once the image is there the pod runs, when the back-off is over.
	w.runtime.PullFails("gone:1", nil)
	a.waitIdle()
	w.clock.Step(5 * time.Second)
	w.waitPhase(pod, v1.PodRunning)
}

func TestPullIsGivenUpWhenThePodIsDeleted(t *testing.T) {
	w := newWorld(t)
	release := w.runtime.PullWaits("slow:1")
	defer release()
	pod := makePod("p").main(func(c *v1.Container) { c.Image = "slow:1" }).obj()
	w.api.create(pod)
	w.start()
	w.waitWaiting(pod, "ContainerCreating")
	if err := w.api.remove(pod, nil); err != nil {
		t.Fatal(err)
	}
	w.waitGone(pod)
}

// While one container's image is being pulled, the others' states are told.
func TestReportsDuringPull(t *testing.T) {
	w := newWorld(t)
	release := w.runtime.PullWaits("slow:1")
	slow := container("slow")
	slow.Image = "slow:1"
	pod := makePod("p").container(slow).obj()
	w.api.create(pod)
	w.start()
	w.wait(pod, "main to be shown running", func(p *v1.Pod) bool {
		return len(p.Status.ContainerStatuses) == 2 && p.Status.ContainerStatuses[0].State.Running != nil
	})
	release()
	w.waitPhase(pod, v1.PodRunning)
}

func TestImageProblems(t *testing.T) {
	for name, c := range map[string]struct {
		image  string
		policy v1.PullPolicy
		reason string
		event  string
	}{
		"never and missing": {"gone:1", v1.PullNever, "ErrImageNeverPull", `Warning ErrImageNeverPull(spec.containers{main}): Container image "gone:1" is not present with pull policy of Never`},
		"bad name":          {"BAD::name", v1.PullIfNotPresent, "InvalidImageName", `Warning InspectFailed(spec.containers{main}): Failed to apply default image tag "BAD::name"`},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			pod := makePod("p").main(func(k *v1.Container) { k.Image, k.ImagePullPolicy = c.image, c.policy }).obj()
			w.api.create(pod)
			w.start()
			w.waitWaiting(pod, c.reason)
			if !w.events.has(c.event) || !w.events.has("Warning Failed(spec.containers{main}): Error: "+c.reason) {
				t.Error(w.events)
			}
		})
	}
}

func TestStartError(t *testing.T) {
	const message = `exec: "nope": executable file not found in $PATH`
	w := newWorld(t)
	w.runtime.Behave = func(*runtimeapi.ContainerConfig) fakecri.Behaviour { return fakecri.Behaviour{StartError: message} }
	never := makePod("never").obj()
	again := makePod("again").restart(v1.RestartPolicyOnFailure).obj()
	w.api.create(never)
	w.api.create(again)
	w.start()
	got := w.waitPhase(never, v1.PodFailed)
	end := got.Status.ContainerStatuses[0].State.Terminated
	if end == nil || end.Reason != "StartError" || end.ExitCode != 128 || end.Message != message {
		t.Errorf("%+v", got.Status.ContainerStatuses[0].State)
	}
	got = w.waitWaiting(again, "RunContainerError")
	if got.Status.ContainerStatuses[0].State.Waiting.Message != message {
		t.Errorf("%+v", got.Status.ContainerStatuses[0].State)
	}
	if !w.events.has("Warning Failed(spec.containers{main}): Error: " + message) {
		t.Error(w.events)
	}
	w.stepUntil(func() bool {
		p, _ := w.api.get(again)
		s := p.Status.ContainerStatuses[0].State.Waiting
		return s != nil && s.Reason == "CrashLoopBackOff"
	})
}

// A runtime that removes what it couldn't start leaves no end to tell of: the pod
// waits, whatever its policy, and the start is tried again after ever longer pauses.
func TestStartErrorThatVanishes(t *testing.T) {
	w := newWorld(t)
	fails := atomic.Bool{}
	fails.Store(true)
	w.runtime.Behave = func(*runtimeapi.ContainerConfig) fakecri.Behaviour {
		if fails.Load() {
			return fakecri.Behaviour{StartError: "no", Vanishes: true}
		}
		return fakecri.Behaviour{Exits: true}
	}
	pod := makePod("p").obj()
	w.api.create(pod)
	a := w.start()
	got := w.waitWaiting(pod, "RunContainerError")
	if s := got.Status.ContainerStatuses[0]; s.State.Waiting.Message != "no" || s.LastTerminationState.Terminated != nil {
		t.Errorf("%+v", s)
	}
	a.waitIdle()
	for i, pause := range []time.Duration{retryInitial, 2 * retryInitial, 4 * retryInitial} {
		w.clock.Step(pause - time.Millisecond)
		a.waitIdle()
		if n := w.runtime.Starts("uid-p", "main"); n != i+1 {
			t.Fatalf("%d starts before pause %d is over", n, i)
		}
		w.clock.Step(time.Millisecond)
		w.until("another start", func() bool { return w.runtime.Starts("uid-p", "main") == i+2 })
		a.waitIdle()
	}
	fails.Store(false)
	w.clock.Step(8 * retryInitial)
	w.waitPhase(pod, v1.PodSucceeded)
}

// However often a container can't be started, no more of it is left than of one that
// ends again and again.
func TestStartErrorsArePruned(t *testing.T) {
	w := newWorld(t)
	w.runtime.Behave = func(*runtimeapi.ContainerConfig) fakecri.Behaviour { return fakecri.Behaviour{StartError: "no"} }
	pod := makePod("p").restart(v1.RestartPolicyOnFailure).obj()
	w.api.create(pod)
	a := w.start()
	uid := string(pod.UID)
	w.stepUntil(func() bool {
		p, _ := w.api.get(pod)
		return len(p.Status.ContainerStatuses) > 0 && p.Status.ContainerStatuses[0].RestartCount >= 4
	})
	a.waitIdle()
	if dead := w.runtime.Dead(uid); len(dead) > 2 {
		t.Errorf("left are %q", dead)
	}
}

// A container whose environment refers to what isn't there starts as soon as it is.
func TestConfigError(t *testing.T) {
	meta := metav1.ObjectMeta{Namespace: "ns", Name: "obj"}
	later := metav1.ObjectMeta{Namespace: "ns", Name: "obj", ResourceVersion: "2"}
	ref := v1.LocalObjectReference{Name: "obj"}
	for name, c := range map[string]struct {
		source  v1.EnvVarSource
		before  runtime.Object
		message string
		create  runtime.Object
	}{
		"ConfigMap": {
			source:  v1.EnvVarSource{ConfigMapKeyRef: &v1.ConfigMapKeySelector{LocalObjectReference: ref, Key: "k"}},
			message: `configmap "obj" not found`,
			create:  &v1.ConfigMap{ObjectMeta: meta, Data: map[string]string{"k": "v"}},
		},
		"Secret": {
			source:  v1.EnvVarSource{SecretKeyRef: &v1.SecretKeySelector{LocalObjectReference: ref, Key: "k"}},
			message: `secret "obj" not found`,
			create:  &v1.Secret{ObjectMeta: meta, Data: map[string][]byte{"k": []byte("v")}},
		},
		"key": {
			source:  v1.EnvVarSource{SecretKeyRef: &v1.SecretKeySelector{LocalObjectReference: ref, Key: "k"}},
			before:  &v1.Secret{ObjectMeta: meta},
			message: `couldn't find key k in Secret ns/obj`,
			create:  &v1.Secret{ObjectMeta: later, Data: map[string][]byte{"k": []byte("v")}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			pod := makePod("p").main(func(k *v1.Container) { k.Env = []v1.EnvVar{{Name: "X", ValueFrom: &c.source}} }).obj()
			w.api.create(pod)
			a := w.start(func(a *agent) {
				if c.before != nil {
					mustDo(t, a.client.Tracker().Add(c.before))
				}
			})
			got := w.waitWaiting(pod, "CreateContainerConfigError")
			if m := got.Status.ContainerStatuses[0].State.Waiting.Message; m != c.message {
				t.Error(m)
			}
			a.waitIdle()
			if c.before != nil {
				mustDo(t, a.client.Tracker().Update(v1.SchemeGroupVersion.WithResource("secrets"), c.create, "ns"))
			} else {
				mustDo(t, a.client.Tracker().Add(c.create))
			}
			w.waitPhase(pod, v1.PodRunning)
			if env := w.runtime.Config("uid-p", "main").Envs; len(env) != 1 || string(env[0].Value) != "v" {
				t.Error(env)
			}
		})
	}
}

func mustDo(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A volume that can't be set up is told by an event, and tried again as soon as
// what was missing is there.
func TestFailedMount(t *testing.T) {
	w := newWorld(t)
	pod := makePod("p").with(func(p *v1.Pod) {
		p.Spec.Volumes = []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{
			LocalObjectReference: v1.LocalObjectReference{Name: "cm"},
		}}}}
	}).main(func(c *v1.Container) { c.VolumeMounts = []v1.VolumeMount{{Name: "v", MountPath: "/v"}} }).obj()
	w.api.create(pod)
	a := w.start()
	w.until("the event", func() bool {
		return w.events.has(`Warning FailedMount: MountVolume.SetUp failed for volume "v" : configmap "cm" not found`)
	})
	w.waitWaiting(pod, "ContainerCreating")
	cm := &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "cm"}, Data: map[string]string{"k": "v"}}
	if _, err := a.client.CoreV1().ConfigMaps("ns").Create(t.Context(), cm, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.waitPhase(pod, v1.PodRunning)
}

func TestSandboxFails(t *testing.T) {
	w := newWorld(t)
	w.runtime.Fail("RunPodSandbox", errors.New("no address left"))
	pod := makePod("p").obj()
	w.api.create(pod)
	w.start()
	w.until("the event", func() bool {
		return w.events.has("Warning FailedCreatePodSandBox: Failed to create pod sandbox: no address left")
	})
	w.waitWaiting(pod, "ContainerCreating")
	w.runtime.Fail("RunPodSandbox", nil)
	w.stepUntil(func() bool { p, _ := w.api.get(pod); return p.Status.Phase == v1.PodRunning })
}

func TestCreateFails(t *testing.T) {
	w := newWorld(t)
	w.runtime.Fail("CreateContainer", errors.New("disk full"))
	pod := makePod("p").obj()
	w.api.create(pod)
	w.start()
	got := w.waitWaiting(pod, "CreateContainerError")
	if m := got.Status.ContainerStatuses[0].State.Waiting.Message; m != "disk full" {
		t.Error(m)
	}
	w.runtime.Fail("CreateContainer", nil)
	w.stepUntil(func() bool { p, _ := w.api.get(pod); return p.Status.Phase == v1.PodRunning })
	if n := w.runtime.Starts("uid-p", "main"); n != 1 {
		t.Errorf("%d starts", n)
	}
}

// A container that was never started and can't be removed is tried again after a
// while, and told of.
func TestDiscardFails(t *testing.T) {
	w := newWorld(t)
	pod := makePod("p").obj()
	w.api.create(pod)
	first := w.start(func(a *agent) { a.conn.DieAfter(2) }) // RunPodSandbox, CreateContainer
	<-first.conn.Died()
	first.kill()
	w.runtime.Fail("RemoveContainer", errors.New("busy"))
	defer w.runtime.Fail("RemoveContainer", nil)
	a := w.start()
	a.waitIdle()
	if n := len(slices.DeleteFunc(a.conn.Calls(), func(m string) bool { return m != "RemoveContainer" })); n != 1 {
		t.Errorf("tried %d times: the first agent called %v, this one %v", n, first.conn.Calls(), a.conn.Calls())
	}
	if !w.events.has("Warning FailedSync: error removing container main, which was never started: busy") {
		t.Error(w.events)
	}
	w.runtime.Fail("RemoveContainer", nil)
	w.stepUntil(func() bool { p, _ := w.api.get(pod); return p.Status.Phase == v1.PodRunning })
}

// A pod that gets a resolver on the host's loopback is told so, once.
func TestUnreachableDNS(t *testing.T) {
	w := newWorld(t)
	resolv := filepath.Join(w.dir, "resolv.conf")
	mustDo(t, os.WriteFile(resolv, []byte("nameserver 127.0.0.53\n"), 0o644))
	w.runtime.Fail("RunPodSandbox", errors.New("not yet"))
	pod := makePod("p").with(func(p *v1.Pod) { p.Spec.DNSPolicy = v1.DNSClusterFirst }).obj()
	w.api.create(pod)
	a := w.start(func(a *agent) { a.dns.ResolvConf = resolv })
	w.waitWaiting(pod, "ContainerCreating")
	a.waitIdle()
	w.runtime.Fail("RunPodSandbox", nil)
	w.stepUntil(func() bool { p, _ := w.api.get(pod); return p.Status.Phase == v1.PodRunning })
	warning := "Warning DNSConfigForming: the pod can't resolve names: " + resolv + " names only servers on the host's loopback (127.0.0.53); "
	if n := strings.Count(w.events.String(), warning); n != 1 {
		t.Errorf("%d warnings in:\n%s", n, w.events)
	}
}

func TestRunAsNonRoot(t *testing.T) {
	w := newWorld(t)
	yes := true
	pod := makePod("p").main(func(c *v1.Container) { c.SecurityContext = &v1.SecurityContext{RunAsNonRoot: &yes} }).obj()
	w.api.create(pod)
	w.start()
	got := w.waitWaiting(pod, "CreateContainerConfigError")
	if m := got.Status.ContainerStatuses[0].State.Waiting.Message; !strings.Contains(m, "container has runAsNonRoot and image will run as root") {
		t.Error(m)
	}
}

// An image that is set on a container which is held back for the old one gets its
// try at once.
func TestImageChangedInBackOff(t *testing.T) {
	change := func(w *world, pod *v1.Pod) {
		w.t.Helper()
		w.api.change(pod, func(p *v1.Pod) { p.Spec.Containers[0].Image = "img:2" })
		w.wait(pod, "the new image to run", func(p *v1.Pod) bool {
			cs := p.Status.ContainerStatuses[0]
			return cs.Image == "img:2" && cs.State.Running != nil
		})
	}
	t.Run("ImagePullBackOff", func(t *testing.T) {
		w := newWorld(t)
		w.runtime.AddImage("img:2")
		w.runtime.PullFails("gone:1", errors.New("no such image"))
		pod := makePod("p").main(func(c *v1.Container) { c.Image = "gone:1" }).obj()
		w.api.create(pod)
		a := w.start()
		w.waitWaiting(pod, "ErrImagePull")
		a.waitIdle()
		change(w, pod)
	})
	t.Run("CrashLoopBackOff", func(t *testing.T) {
		w := newWorld(t)
		w.runtime.AddImage("img:2")
		w.runtime.Behave = func(c *runtimeapi.ContainerConfig) fakecri.Behaviour {
			return fakecri.Behaviour{Exits: c.Image.UserSpecifiedImage == "img:1", ExitCode: 1}
		}
		pod := makePod("p").restart(v1.RestartPolicyAlways).obj()
		w.api.create(pod)
		a := w.start()
		w.waitWaiting(pod, "CrashLoopBackOff")
		a.waitIdle()
		change(w, pod)
	})
}

func TestImageChanged(t *testing.T) {
	w := newWorld(t)
	w.runtime.AddImage("img:2")
	pod := makePod("p").restart(v1.RestartPolicyAlways).obj()
	w.api.create(pod)
	a := w.start()
	w.waitPhase(pod, v1.PodRunning)
	a.waitIdle()
	w.api.change(pod, func(p *v1.Pod) { p.Spec.Containers[0].Image = "img:2" })
	w.wait(pod, "the new image to run", func(p *v1.Pod) bool {
		cs := p.Status.ContainerStatuses[0]
		return cs.Image == "img:2" && cs.State.Running != nil && cs.RestartCount == 1
	})
	if !w.events.has("Normal Killing(spec.containers{main}): Container main definition changed, will be restarted") {
		t.Error(w.events)
	}
}
