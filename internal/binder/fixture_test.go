package binder

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	testingclock "k8s.io/utils/clock/testing"
)

// podBuilder builds pods for tests.
type podBuilder struct{ pod *v1.Pod }

func makePod(name string) *podBuilder {
	return &podBuilder{&v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID("uid-" + name)},
		Spec: v1.PodSpec{
			SchedulerName: v1.DefaultSchedulerName,
			Containers:    []v1.Container{{Name: "c"}},
		},
	}}
}

func (b *podBuilder) obj() *v1.Pod { return b.pod }

func (b *podBuilder) with(change func(*v1.Pod)) *podBuilder {
	change(b.pod)
	return b
}

func (b *podBuilder) requests(pairs ...string) *podBuilder {
	return b.with(func(p *v1.Pod) { p.Spec.Containers[0].Resources.Requests = quantities(pairs...) })
}

func (b *podBuilder) labels(pairs ...string) *podBuilder {
	return b.with(func(p *v1.Pod) { p.Labels = stringMap(pairs) })
}

func (b *podBuilder) priority(n int32) *podBuilder {
	return b.with(func(p *v1.Pod) { p.Spec.Priority = &n })
}

func (b *podBuilder) on(node string) *podBuilder {
	return b.with(func(p *v1.Pod) { p.Spec.NodeName = node })
}

func (b *podBuilder) hostPort(port int32, ip string) *podBuilder {
	return b.with(func(p *v1.Pod) {
		c := &p.Spec.Containers[0]
		c.Ports = append(c.Ports, v1.ContainerPort{HostPort: port, HostIP: ip, Protocol: v1.ProtocolTCP})
	})
}

func (b *podBuilder) selector(pairs ...string) *podBuilder {
	return b.with(func(p *v1.Pod) { p.Spec.NodeSelector = stringMap(pairs) })
}

func (b *podBuilder) tolerates(key string) *podBuilder {
	return b.with(func(p *v1.Pod) {
		p.Spec.Tolerations = append(p.Spec.Tolerations, v1.Toleration{Key: key, Operator: v1.TolerationOpExists})
	})
}

func (b *podBuilder) affinity() *v1.Affinity {
	if b.pod.Spec.Affinity == nil {
		b.pod.Spec.Affinity = &v1.Affinity{}
	}
	return b.pod.Spec.Affinity
}

func (b *podBuilder) near(key string, match ...string) *podBuilder {
	b.affinity().PodAffinity = &v1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []v1.PodAffinityTerm{term(key, match)}}
	return b
}

func (b *podBuilder) awayFrom(key string, match ...string) *podBuilder {
	b.affinity().PodAntiAffinity = &v1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []v1.PodAffinityTerm{term(key, match)}}
	return b
}

func (b *podBuilder) spread(key string, maxSkew int32, how v1.UnsatisfiableConstraintAction, match ...string) *podBuilder {
	return b.with(func(p *v1.Pod) {
		p.Spec.TopologySpreadConstraints = append(p.Spec.TopologySpreadConstraints, v1.TopologySpreadConstraint{
			TopologyKey: key, MaxSkew: maxSkew, WhenUnsatisfiable: how,
			LabelSelector: &metav1.LabelSelector{MatchLabels: stringMap(match)},
		})
	})
}

func term(key string, match []string) v1.PodAffinityTerm {
	return v1.PodAffinityTerm{TopologyKey: key, LabelSelector: &metav1.LabelSelector{MatchLabels: stringMap(match)}}
}

func makeNode(name string, allocatable ...string) *v1.Node {
	if len(allocatable) == 0 {
		allocatable = []string{"cpu", "2", "memory", "4Gi", "ephemeral-storage", "10Gi", "pods", "110"}
	}
	return &v1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{v1.LabelHostname: name}},
		Status:     v1.NodeStatus{Allocatable: quantities(allocatable...)},
	}
}

func changedNode(n *v1.Node, change func(*v1.Node)) *v1.Node {
	n = n.DeepCopy()
	change(n)
	return n
}

func tainted(n *v1.Node, key string, effect v1.TaintEffect) *v1.Node {
	return changedNode(n, func(n *v1.Node) {
		n.Spec.Taints = append(n.Spec.Taints, v1.Taint{Key: key, Effect: effect})
	})
}

func labelled(n *v1.Node, pairs ...string) *v1.Node {
	return changedNode(n, func(n *v1.Node) {
		for k, v := range stringMap(pairs) {
			n.Labels[k] = v
		}
	})
}

func quantities(pairs ...string) v1.ResourceList {
	list := v1.ResourceList{}
	for k, v := range stringMap(pairs) {
		list[v1.ResourceName(k)] = resource.MustParse(v)
	}
	return list
}

func stringMap(pairs []string) map[string]string {
	m := map[string]string{}
	for i := 0; i+1 < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return m
}

// stateWith is a state with these nodes and pods on them.
func stateWith(objects ...any) *state {
	s := newState(&storage{})
	for _, o := range objects {
		switch o := o.(type) {
		case *v1.Node:
			s.setNode(o)
		case *podBuilder:
			s.confirm(newPodInfo(o.pod), o.pod.Spec.NodeName)
		}
	}
	return s
}

// decide finds a node for a pod, or pods to evict, or says why there are none.
func (s *state) decide(ctx context.Context, pod *v1.Pod, budgets ...*policyv1.PodDisruptionBudget) (*nodeInfo, *diagnosis) {
	info := newPodInfo(pod)
	n, d := s.place(ctx, info)
	if n != nil {
		return n, d
	}
	if d.ineligible = s.ineligible(&waiting{pod: pod, info: info}, d); d.ineligible == "" {
		if found := s.preempt(ctx, info, d, budgets); found != nil {
			d.found = found.String()
		}
	}
	return nil, d
}

// world is a Binder at work on a fake API server.
type world struct {
	*Binder
	client *fake.Clientset
	clock  *testingclock.FakeClock
	events *recorder

	mu      sync.Mutex
	bindErr error // what bindings answer, if set
	bound   []string
}

// recorder keeps events and passes them on.
type recorder struct{ ch chan string }

func (r *recorder) Event(o runtime.Object, kind, reason, message string) {
	r.ch <- fmt.Sprintf("%s %s %s: %s", o.(*v1.Pod).Name, kind, reason, message)
}

func (r *recorder) Eventf(o runtime.Object, kind, reason, format string, args ...any) {
	r.Event(o, kind, reason, fmt.Sprintf(format, args...))
}

func (r *recorder) AnnotatedEventf(o runtime.Object, _ map[string]string, kind, reason, format string, args ...any) {
	r.Event(o, kind, reason, fmt.Sprintf(format, args...))
}

func newWorld(t testing.TB, objects ...runtime.Object) *world {
	t.Helper()
	w := &world{
		client: fake.NewSimpleClientset(objects...), // NewClientset tracks managed fields at 4 ms a write
		clock:  testingclock.NewFakeClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)),
		events: &recorder{make(chan string, 100_000)},
	}
	w.client.PrependReactor("create", "pods", w.answerBinding)
	factory := informers.NewSharedInformerFactory(w.client, 0)
	b, err := New(Config{Client: w.client, Informers: factory, Recorder: w.events, Clock: w.clock})
	if err != nil {
		t.Fatal(err)
	}
	w.Binder = b
	ctx, cancel := context.WithCancel(context.Background())
	factory.StartWithContext(ctx)
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		factory.Shutdown()
	})
	<-b.Ready()
	return w
}

// answerBinding does what the API server does for pods/binding.
func (w *world) answerBinding(action clienttesting.Action) (bool, runtime.Object, error) {
	if action.GetSubresource() != "binding" {
		return false, nil, nil
	}
	binding := action.(clienttesting.CreateAction).GetObject().(*v1.Binding)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.bindErr != nil {
		return true, nil, w.bindErr
	}
	pods := v1.SchemeGroupVersion.WithResource("pods")
	obj, err := w.client.Tracker().Get(pods, binding.Namespace, binding.Name)
	if err != nil {
		return true, nil, err
	}
	pod := obj.(*v1.Pod).DeepCopy()
	if pod.Spec.NodeName != "" {
		return true, nil, apierrors.NewConflict(v1.Resource("pods/binding"), pod.Name, fmt.Errorf("pod %s is already assigned to node %q", pod.Name, pod.Spec.NodeName))
	}
	pod.Spec.NodeName = binding.Target.Name
	w.bound = append(w.bound, pod.Name+"@"+pod.Spec.NodeName)
	return true, binding, w.client.Tracker().Update(pods, pod, pod.Namespace)
}

func (w *world) setBindErr(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.bindErr = err
}

func (w *world) create(t testing.TB, pod *v1.Pod) {
	t.Helper()
	if _, err := w.client.CoreV1().Pods(pod.Namespace).Create(context.Background(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (w *world) update(t testing.TB, name string, change func(*v1.Pod)) {
	t.Helper()
	pods := w.client.CoreV1().Pods("ns")
	pod, err := pods.Get(context.Background(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pod = pod.DeepCopy()
	change(pod)
	if _, err := pods.Update(context.Background(), pod, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (w *world) delete(t testing.TB, name string) {
	t.Helper()
	if err := w.client.CoreV1().Pods("ns").Delete(context.Background(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

// wantEvent waits for the next event and checks it.
func (w *world) wantEvent(t testing.TB, want string) {
	t.Helper()
	select {
	case got := <-w.events.ch:
		if got != want {
			t.Fatalf("event %q\n want %q", got, want)
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("no event; want %q", want)
	}
}
