package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2/ktesting"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"

	"errand.dev/errand/internal/node/crispec"
	"errand.dev/errand/internal/node/fakecri"
	"errand.dev/errand/internal/podtrace"
)

const patience = 20 * time.Second

// world is an API, a runtime and a disk, on which agents live and die.
type world struct {
	t       *testing.T
	clock   *clocktesting.FakeClock
	api     *fakeAPI
	runtime *fakecri.Runtime
	dir     string
	events  *eventLog
}

func newWorld(t *testing.T) *world {
	clk := clocktesting.NewFakeClock(time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC))
	w := &world{t: t, clock: clk, api: newFakeAPI(clk), runtime: fakecri.New(clk), dir: t.TempDir(), events: &eventLog{}}
	w.runtime.AddImage("img:1")
	return w
}

// agent is one life of the node agent.
type agent struct {
	w       *world
	node    *Node
	conn    *fakecri.Client
	cri     internalapi.RuntimeService // conn, or what a test puts before it
	client  *fake.Clientset
	dns     crispec.DNS
	drained func(id string) bool
	admit   func(context.Context, *v1.Pod) (string, string)
	traces  *podtrace.Recorder
	keeps   bool // logs of Jobs' pods
	stop    func()
}

// start starts an agent; configure may set its death and objects beforehand.
func (w *world) start(configure ...func(*agent)) *agent {
	w.t.Helper()
	conn := w.runtime.Connect()
	a := &agent{w: w, conn: conn, cri: conn, client: w.api.client(conn)}
	for _, f := range configure {
		f(a)
	}
	factory := informers.NewSharedInformerFactory(a.client, 0)
	kept, runKept := a.keeper(factory)
	n, err := New(Config{
		Client:           a.client,
		Informers:        factory,
		NodeName:         "node-1",
		Runtime:          a.cri,
		Images:           w.runtime.Images(),
		RootDir:          filepath.Join(w.dir, "pods"),
		LogDir:           filepath.Join(w.dir, "logs"),
		KeptLogs:         kept,
		CgroupParent:     "/errand",
		HostIPs:          []string{"192.0.2.7"},
		Allocatable:      v1.ResourceList{v1.ResourceCPU: resource.MustParse("4"), v1.ResourceMemory: resource.MustParse("8Gi")},
		MemoryCapacity:   8 << 30,
		DNS:              a.dns,
		Admit:            a.admit,
		Drained:          a.drained,
		Traces:           a.traces,
		Recorder:         w.events,
		Clock:            w.clock,
		StartConcurrency: 4,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	a.node = n
	_, ctx := ktesting.NewTestContext(w.t)
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		keeping := runKept(ctx)
		defer func() { <-keeping }()
		if err := n.Run(ctx); err != nil && !errors.Is(err, fakecri.ErrDead) {
			w.t.Errorf("Run: %v", err)
		}
	}()
	factory.Start(ctx.Done())
	a.stop = sync.OnceFunc(func() {
		cancel()
		<-done
		factory.Shutdown()
	})
	w.t.Cleanup(a.stop)
	return a
}

// kill ends the agent as kill -9 does: nothing it still does has an effect.
func (a *agent) kill() {
	a.conn.Kill()
	a.stop()
}

// wait waits until the pod satisfies ok and returns it; nil is passed for a pod
// that is gone.
func (w *world) wait(pod *v1.Pod, what string, ok func(*v1.Pod) bool) *v1.Pod {
	w.t.Helper()
	timeout := time.After(patience)
	for {
		now, changed := w.api.get(pod)
		if ok(now) {
			return now
		}
		select {
		case <-changed:
		case <-timeout:
			w.t.Fatalf("waited in vain for: %s\npod: %s\nevents:\n%s", what, statusText(now), w.events)
		}
	}
}

func (w *world) waitPhase(pod *v1.Pod, phase v1.PodPhase) *v1.Pod {
	w.t.Helper()
	return w.wait(pod, "phase "+string(phase), func(p *v1.Pod) bool { return p != nil && p.Status.Phase == phase })
}

func (w *world) waitGone(pod *v1.Pod) {
	w.t.Helper()
	w.wait(pod, "the pod to be gone", func(p *v1.Pod) bool { return p == nil })
}

// waitWaiting waits until the pod's first container waits for the reason.
func (w *world) waitWaiting(pod *v1.Pod, reason string) *v1.Pod {
	w.t.Helper()
	return w.wait(pod, "waiting reason "+reason, func(p *v1.Pod) bool {
		return p != nil && len(p.Status.ContainerStatuses) > 0 &&
			p.Status.ContainerStatuses[0].State.Waiting != nil &&
			p.Status.ContainerStatuses[0].State.Waiting.Reason == reason
	})
}

// restsAlive waits until the agent has nothing to do or is dead, and tells
// which.
func (a *agent) restsAlive() bool {
	select {
	case <-a.conn.Died():
		return false
	case <-a.node.Ready():
	}
	dead := func() bool {
		select {
		case <-a.conn.Died():
			return true
		default:
			return false
		}
	}
	a.w.until("the agent to come to rest, or to die", func() bool { return dead() || a.idle() })
	return !dead()
}

// waitIdle waits until no worker of the agent has anything to do.
func (a *agent) waitIdle() {
	a.w.t.Helper()
	<-a.node.Ready()
	a.w.until("the agent to come to rest", a.idle)
}

func (a *agent) idle() bool {
	for _, w := range a.node.all() {
		if w.busy() {
			return false
		}
	}
	return true
}

func (w *worker) busy() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.status.mu.Lock()
	defer w.status.mu.Unlock()
	return w.active || w.dirty || w.status.active
}

// waitForgotten waits until the agent has removed all that was the pod's.
func (a *agent) waitForgotten(pod *v1.Pod) {
	a.w.t.Helper()
	<-a.node.Ready()
	a.w.until("the pod to be forgotten", func() bool { return a.node.existing(pod.UID) == nil })
}

// until waits for what no channel tells of.
func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			w.t.Fatalf("waited in vain for %s\nevents:\n%s", what, w.events)
		}
	}
}

func statusText(p *v1.Pod) string {
	if p == nil {
		return "none"
	}
	return fmt.Sprintf("%+v", p.Status)
}

// eventLog records events as "Reason(field): message", in order.
type eventLog struct {
	mu   sync.Mutex
	list []string
}

func (l *eventLog) Event(obj runtime.Object, eventType, reason, message string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	where := ""
	if ref, ok := obj.(*v1.ObjectReference); ok && ref.FieldPath != "" {
		where = "(" + ref.FieldPath + ")"
	}
	l.list = append(l.list, fmt.Sprintf("%s %s%s: %s", eventType, reason, where, message))
}

func (l *eventLog) Eventf(obj runtime.Object, eventType, reason, format string, args ...any) {
	l.Event(obj, eventType, reason, fmt.Sprintf(format, args...))
}

func (l *eventLog) AnnotatedEventf(obj runtime.Object, _ map[string]string, eventType, reason, format string, args ...any) {
	l.Event(obj, eventType, reason, fmt.Sprintf(format, args...))
}

func (l *eventLog) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.list...)
}

func (l *eventLog) String() string { return strings.Join(l.all(), "\n") }

func (l *eventLog) has(part string) bool { return strings.Contains(l.String(), part) }

// podBuilder makes pods as the API server would have defaulted them.
type podBuilder struct{ pod *v1.Pod }

func makePod(name string) *podBuilder {
	return &podBuilder{&v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns", UID: types.UID("uid-" + name), Generation: 1},
		Spec: v1.PodSpec{
			NodeName:                      "node-1",
			RestartPolicy:                 v1.RestartPolicyNever,
			TerminationGracePeriodSeconds: ptr.To[int64](30),
			DNSPolicy:                     v1.DNSNone,
			EnableServiceLinks:            ptr.To(true),
			SecurityContext:               &v1.PodSecurityContext{},
			Containers:                    []v1.Container{container("main")},
		},
		Status: v1.PodStatus{Phase: v1.PodPending},
	}}
}

func container(name string) v1.Container {
	return v1.Container{
		Name:                     name,
		Image:                    "img:1",
		ImagePullPolicy:          v1.PullIfNotPresent,
		TerminationMessagePath:   "/dev/termination-log",
		TerminationMessagePolicy: v1.TerminationMessageReadFile,
	}
}

func (b *podBuilder) restart(p v1.RestartPolicy) *podBuilder {
	b.pod.Spec.RestartPolicy = p
	return b
}

func (b *podBuilder) container(c v1.Container) *podBuilder {
	b.pod.Spec.Containers = append(b.pod.Spec.Containers, c)
	return b
}

func (b *podBuilder) init(names ...string) *podBuilder {
	for _, name := range names {
		b.pod.Spec.InitContainers = append(b.pod.Spec.InitContainers, container(name))
	}
	return b
}

func (b *podBuilder) sidecar(name string) *podBuilder {
	c := container(name)
	c.RestartPolicy = ptr.To(v1.ContainerRestartPolicyAlways)
	b.pod.Spec.InitContainers = append(b.pod.Spec.InitContainers, c)
	return b
}

func (b *podBuilder) with(f func(*v1.Pod)) *podBuilder {
	f(b.pod)
	return b
}

func (b *podBuilder) main(f func(*v1.Container)) *podBuilder {
	f(&b.pod.Spec.Containers[0])
	return b
}

func (b *podBuilder) obj() *v1.Pod { return b.pod }

// exitByName makes all containers exit at once, with 0 or the code given.
func exitByName(codes map[string]int32) func(*runtimeapi.ContainerConfig) fakecri.Behaviour {
	return func(c *runtimeapi.ContainerConfig) fakecri.Behaviour {
		return fakecri.Behaviour{Exits: true, ExitCode: codes[c.Metadata.Name]}
	}
}

// waitOrDeath waits until ok, or until the agent is dead.
func (w *world) waitOrDeath(a *agent, pod *v1.Pod, ok func(*v1.Pod) bool) {
	w.t.Helper()
	timeout := time.After(patience)
	for {
		now, changed := w.api.get(pod)
		if ok(now) {
			return
		}
		select {
		case <-changed:
		case <-a.conn.Died():
			return
		case <-timeout:
			w.t.Fatalf("neither done nor dead\npod: %s\nevents:\n%s", statusText(now), w.events)
		}
	}
}

// stepUntil lets the fake clock's time pass until ok.
func (w *world) stepUntil(ok func() bool) {
	w.t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
			w.clock.Step(100 * time.Millisecond)
		case <-deadline:
			w.t.Fatalf("time passes in vain\nevents:\n%s", w.events)
		}
	}
}

// mustBeEmpty checks that nothing of any pod is left on disk.
func (w *world) mustBeEmpty() {
	w.t.Helper()
	for _, dir := range []string{"pods", "logs"} {
		entries, err := os.ReadDir(filepath.Join(w.dir, dir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			w.t.Fatal(err)
		}
		for _, e := range entries {
			w.t.Errorf("left: %s/%s", dir, e.Name())
		}
	}
}
