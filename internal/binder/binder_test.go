package binder

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
)

func TestMain(m *testing.M) {
	watch.DefaultChanSize = 1 << 17 // the fake API server panics when a watcher is slow
	goleak.VerifyTestMain(m)
}

func insufficientCPU(pod string) string {
	return pod + " Warning FailedScheduling: 0/1 nodes are available: 1 Insufficient cpu." + noVictims
}

func scheduled(pod string) string {
	return fmt.Sprintf("%s Normal Scheduled: Successfully assigned ns/%s to n", pod, pod)
}

func TestBindsAndExplains(t *testing.T) {
	w := newWorld(t, makeNode("n"))
	w.create(t, makePod("p").requests("cpu", "1500m").obj())
	w.wantEvent(t, scheduled("p"))
	w.create(t, makePod("q").requests("cpu", "1").obj())
	w.wantEvent(t, insufficientCPU("q"))
	pod, err := w.client.CoreV1().Pods("ns").Get(t.Context(), "q", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, c := podutil.GetPodCondition(&pod.Status, v1.PodScheduled)
	if c == nil || c.Status != v1.ConditionFalse || c.Reason != "Unschedulable" ||
		c.Message != "0/1 nodes are available: 1 Insufficient cpu."+noVictims || c.LastTransitionTime.IsZero() {
		t.Errorf("condition %+v", c)
	}
	w.update(t, "p", func(p *v1.Pod) { p.Status.Phase = v1.PodSucceeded })
	w.wantEvent(t, scheduled("q"))
}

func TestRoomComesInManyWays(t *testing.T) {
	for name, tc := range map[string]struct {
		node   *v1.Node
		others []*podBuilder
		pod    *podBuilder
		cure   func(*testing.T, *world)
	}{
		"a pod is deleted": {
			makeNode("n"), []*podBuilder{makePod("q").requests("cpu", "2").on("n")}, makePod("p").requests("cpu", "1"),
			func(t *testing.T, w *world) { w.delete(t, "q") },
		},
		"a pod fails": {
			makeNode("n"), []*podBuilder{makePod("q").requests("cpu", "2").on("n")}, makePod("p").requests("cpu", "1"),
			func(t *testing.T, w *world) { w.update(t, "q", func(p *v1.Pod) { p.Status.Phase = v1.PodFailed }) },
		},
		"the node is uncordoned": {
			changedNode(makeNode("n"), func(n *v1.Node) { n.Spec.Unschedulable = true }), nil, makePod("p"),
			func(t *testing.T, w *world) { updateNode(t, w, makeNode("n")) },
		},
		"the node gets a label": {
			makeNode("n"), nil, makePod("p").selector("a", "b"),
			func(t *testing.T, w *world) { updateNode(t, w, labelled(makeNode("n"), "a", "b")) },
		},
		"the pod it wants to join comes": {
			makeNode("n"), nil, makePod("p").near(v1.LabelHostname, "app", "x"),
			func(t *testing.T, w *world) { w.create(t, makePod("q").labels("app", "x").on("n").obj()) },
		},
		"the pod learns to tolerate": {
			tainted(makeNode("n"), "k", v1.TaintEffectNoSchedule), nil, makePod("p"),
			func(t *testing.T, w *world) {
				w.update(t, "p", func(p *v1.Pod) {
					makePod("").tolerates("k").with(func(x *v1.Pod) { p.Spec.Tolerations = x.Spec.Tolerations })
				})
			},
		},
		"a pod that kept it away changes its labels": {
			makeNode("n"), []*podBuilder{makePod("q").labels("app", "x").on("n")}, makePod("p").awayFrom(v1.LabelHostname, "app", "x"),
			func(t *testing.T, w *world) { w.update(t, "q", func(p *v1.Pod) { p.Labels = nil }) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, tc.node)
			for _, o := range tc.others {
				w.create(t, o.obj())
			}
			w.create(t, tc.pod.obj())
			if got := <-w.events.ch; got[:9] != "p Warning" {
				t.Fatalf("event %q", got)
			}
			tc.cure(t, w)
			w.wantEvent(t, scheduled("p"))
		})
	}
}

func updateNode(t *testing.T, w *world, n *v1.Node) {
	t.Helper()
	if _, err := w.client.CoreV1().Nodes().Update(t.Context(), n, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestPodsThatAreNotOurs(t *testing.T) {
	w := newWorld(t, makeNode("n"))
	w.create(t, makePod("other").with(func(p *v1.Pod) { p.Spec.SchedulerName = "mine" }).obj())
	w.create(t, makePod("gated").with(func(p *v1.Pod) { p.Spec.SchedulingGates = []v1.PodSchedulingGate{{Name: "g"}} }).obj())
	w.create(t, makePod("done").with(func(p *v1.Pod) { p.Status.Phase = v1.PodFailed }).obj())
	w.create(t, makePod("p").obj())
	w.wantEvent(t, scheduled("p"))
	w.update(t, "gated", func(p *v1.Pod) { p.Spec.SchedulingGates = nil })
	w.wantEvent(t, scheduled("gated"))
}

func TestPriorityThenArrival(t *testing.T) {
	w := newWorld(t)
	for i, priority := range []int32{0, 0, 10, 5, 10} {
		name := fmt.Sprint("p", i)
		w.create(t, makePod(name).requests("cpu", fmt.Sprint(i+1)).priority(priority).obj())
		w.wantEvent(t, name+" Warning FailedScheduling: no nodes available to schedule pods")
	}
	if _, err := w.client.CoreV1().Nodes().Create(t.Context(), makeNode("n", "cpu", "100", "pods", "100"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	// Decisions are in order; workers may carry them out in any.
	got := map[string]bool{}
	for range 5 {
		got[<-w.events.ch] = true
	}
	for i := range 5 {
		if !got[scheduled(fmt.Sprint("p", i))] {
			t.Errorf("p%d was not bound: %v", i, got)
		}
	}
}

func TestQueueOrder(t *testing.T) {
	q := newQueue()
	for _, p := range []*podBuilder{
		makePod("a"), makePod("b").requests("cpu", "1"), makePod("c"), makePod("d").priority(1), makePod("e").requests("cpu", "1"),
	} {
		q.add(&waiting{pod: p.pod, info: newPodInfo(p.pod)})
	}
	var got string
	for w := q.head(); w != nil; w = q.head() {
		got += w.pod.Name
		q.remove(w.info.uid)
	}
	if got != "dabce" {
		t.Errorf("order %s, want dabce", got)
	}
	if len(q.pods)+len(q.classes)+q.active.Len()+q.untold.Len() != 0 {
		t.Errorf("left: %+v", q)
	}
}

// A class that doesn't fit is looked at once per event, and each of its pods is
// told once.
func TestAClassWaitsTogether(t *testing.T) {
	w := newWorld(t, makeNode("n", "cpu", "1", "pods", "110"))
	w.create(t, makePod("first").requests("cpu", "1").obj())
	w.wantEvent(t, scheduled("first"))
	for i := range 20 {
		w.create(t, makePod(fmt.Sprint("p", i)).requests("cpu", "1").obj())
		w.wantEvent(t, insufficientCPU(fmt.Sprint("p", i)))
	}
	last := "first"
	for i := range 20 {
		w.delete(t, last)
		last = fmt.Sprint("p", i)
		w.wantEvent(t, scheduled(last))
	}
	select {
	case e := <-w.events.ch:
		t.Errorf("a surplus event: %s", e)
	default:
	}
}

// When a class waits for another reason than before, each pod's condition says so,
// and one event does.
func TestAClassIsToldOfANewReason(t *testing.T) {
	w := newWorld(t, makeNode("n", "cpu", "1", "pods", "110"))
	names := []string{"p0", "p1", "p2"}
	for _, name := range names {
		w.create(t, makePod(name).requests("cpu", "2").obj())
		w.wantEvent(t, name+" Warning FailedScheduling: 0/1 nodes are available: 1 Insufficient cpu."+noHelp)
	}
	pods, err := w.client.CoreV1().Pods("ns").Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer pods.Stop()
	const cordoned = "0/1 nodes are available: 1 node(s) were unschedulable." + noHelp
	updateNode(t, w, changedNode(makeNode("n", "cpu", "1", "pods", "110"), func(n *v1.Node) { n.Spec.Unschedulable = true }))
	w.wantEvent(t, "p0 Warning FailedScheduling: "+cordoned)
	told := map[string]bool{}
	for len(told) < len(names) {
		select {
		case e := <-pods.ResultChan():
			pod := e.Object.(*v1.Pod)
			if _, c := podutil.GetPodCondition(&pod.Status, v1.PodScheduled); c != nil && c.Message == cordoned {
				told[pod.Name] = true
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("only these were told: %v", told)
		}
	}
	updateNode(t, w, makeNode("n", "cpu", "1", "pods", "110"))
	w.wantEvent(t, "p0 Warning FailedScheduling: 0/1 nodes are available: 1 Insufficient cpu."+noHelp)
}

// Other pods' anti-affinity concerns a pod by its labels, which don't make a
// class: the pod behind must not be held up.
func TestIndividualReasonsDontBlockTheClass(t *testing.T) {
	w := newWorld(t, makeNode("n"))
	w.create(t, makePod("guard").awayFrom(v1.LabelHostname, "app", "x").on("n").obj())
	w.create(t, makePod("x").labels("app", "x").obj())
	w.wantEvent(t, "x Warning FailedScheduling: 0/1 nodes are available: 1 node(s) didn't satisfy existing pods anti-affinity rules."+noVictims)
	w.create(t, makePod("y").labels("app", "y").obj())
	w.wantEvent(t, scheduled("y"))
	w.delete(t, "guard")
	w.wantEvent(t, scheduled("x"))
}

func TestFailedBindingGivesTheRoomBack(t *testing.T) {
	w := newWorld(t, makeNode("n", "cpu", "1", "pods", "110"))
	w.setBindErr(errors.New("etcd is away"))
	w.create(t, makePod("p").requests("cpu", "1").obj())
	w.wantEvent(t, "p Warning FailedScheduling: binding rejected: etcd is away")
	w.setBindErr(nil)
	w.create(t, makePod("q").requests("cpu", "1").obj())
	w.wantEvent(t, scheduled("q")) // p waits for its back-off
	w.clock.Step(time.Second)
	w.wantEvent(t, insufficientCPU("p"))
	w.delete(t, "q")
	w.wantEvent(t, scheduled("p"))
}

func TestNeverOvercommits(t *testing.T) {
	w := newWorld(t, makeNode("a", "cpu", "5", "pods", "100"), makeNode("b", "cpu", "5", "pods", "100"))
	for i := range 30 {
		w.create(t, makePod(fmt.Sprint("p", i)).requests("cpu", "1").obj())
	}
	bound := 0
	for range 30 {
		if e := <-w.events.ch; len(e) > 0 && e[len(e)-4:len(e)-1] == "to " {
			bound++
		}
	}
	if bound != 10 {
		t.Errorf("%d pods were bound to 10 cores, want 10", bound)
	}
}

func TestPodsOfAnEarlierBinderAreNotToldAgain(t *testing.T) {
	const message = "0/1 nodes are available: 1 Insufficient cpu." + noHelp
	pod := makePod("p").requests("cpu", "3").with(func(p *v1.Pod) {
		p.Status.Conditions = []v1.PodCondition{{Type: v1.PodScheduled, Status: v1.ConditionFalse, Reason: "Unschedulable", Message: message}}
	}).obj()
	w := newWorld(t, makeNode("n"), pod)
	w.create(t, makePod("q").obj())
	w.wantEvent(t, scheduled("q")) // and nothing about p
}

// What a pod had is free when a watch that was cut off shows another of its name.
func TestPodReplacedUnseen(t *testing.T) {
	w := newWorld(t, makeNode("n", "cpu", "1", "pods", "110"))
	w.create(t, makePod("p").requests("cpu", "1").obj())
	w.wantEvent(t, scheduled("p"))
	w.update(t, "p", func(p *v1.Pod) { p.UID, p.Spec.NodeName = "another", "" })
	w.wantEvent(t, scheduled("p"))
}

// Events don't last for ever; a pod that still waits says so again.
func TestPodsThatWaitLongSaySoAgain(t *testing.T) {
	w := newWorld(t, makeNode("n", "cpu", "1", "pods", "110"))
	w.create(t, makePod("q").requests("cpu", "1").on("n").obj())
	w.create(t, makePod("p").requests("cpu", "1").obj())
	w.wantEvent(t, insufficientCPU("p"))
	w.clock.Step(remindAfter)
	w.wantEvent(t, insufficientCPU("p"))
}

func BenchmarkBind(b *testing.B) {
	w := newWorld(b, makeNode("n", "cpu", "1000000", "pods", "10000000"))
	pods := make([]*v1.Pod, 0, b.N)
	for i := range b.N {
		pods = append(pods, makePod(fmt.Sprint("p", i)).requests("cpu", "1m").labels("job", "j").obj())
	}
	b.ResetTimer()
	go func() {
		for _, p := range pods {
			w.create(b, p)
		}
	}()
	for range b.N {
		<-w.events.ch
	}
}

// BenchmarkDecide is the cost of a decision by itself: parse, queue, place, count.
func BenchmarkDecide(b *testing.B) {
	for _, nodes := range []int{1, 100} {
		b.Run(fmt.Sprint(nodes, "nodes"), func(b *testing.B) {
			s, q := newState(&storage{}), newQueue()
			for i := range nodes {
				s.setNode(makeNode(fmt.Sprint("n", i), "cpu", "1000000", "pods", "10000000"))
			}
			pod := makePod("p").requests("cpu", "1m").obj()
			b.ReportAllocs()
			for b.Loop() {
				q.add(&waiting{pod: pod, info: newPodInfo(pod)})
				w := q.head()
				n, _ := s.place(b.Context(), w.info)
				q.remove(w.info.uid)
				s.assume(w.info, n.name)
				s.confirm(newPodInfo(pod), n.name)
			}
		})
	}
}
