package binder

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clienttesting "k8s.io/client-go/testing"
)

func (b *podBuilder) began(minute int) *podBuilder {
	at := metav1.NewTime(time.Date(2026, 1, 1, 0, minute, 0, 0, time.UTC))
	return b.with(func(p *v1.Pod) { p.Status.StartTime = &at })
}

func (b *podBuilder) terminating() *podBuilder {
	return b.with(func(p *v1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)} })
}

func budget(allowed int32, match ...string) *policyv1.PodDisruptionBudget {
	return &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "b"},
		Spec:       policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: stringMap(match)}},
		Status:     policyv1.PodDisruptionBudgetStatus{DisruptionsAllowed: allowed},
	}
}

func TestPreempt(t *testing.T) {
	cpu := func(name, amount string, priority int32) *podBuilder {
		return makePod(name).requests("cpu", amount).priority(priority).on("a")
	}
	node := makeNode("a") // 2 CPUs
	for name, tc := range map[string]struct {
		state   []any
		budgets []*policyv1.PodDisruptionBudget
		pod     *podBuilder
		want    string // victims@node, or why there are none
	}{
		"nobody is less important": {[]any{node, cpu("x", "2", 10)}, nil, cpu("p", "1", 10), "No preemption victims found for incoming pod"},
		"the least important goes": {[]any{node, cpu("x", "1", 2), cpu("y", "1", 1)}, nil, cpu("p", "1", 10), "y@a"},
		"of equals, the latest":    {[]any{node, cpu("x", "1", 1).began(1), cpu("y", "1", 1).began(2), cpu("z", "0", 1).began(0)}, nil, cpu("p", "1", 10), "y@a"},
		"who takes nothing stays":  {[]any{node, cpu("x", "2", 2), cpu("y", "0", 1)}, nil, cpu("p", "1", 10), "x@a"},
		"two go for a large one":   {[]any{node, cpu("x", "1", 2), cpu("y", "1", 1)}, nil, cpu("p", "2", 10), "x,y@a"},
		"who goes anyway goes first": {
			[]any{node, cpu("x", "1", 5).terminating(), cpu("y", "1", 1)}, nil, cpu("p", "1", 10), "x@a",
		},
		"it wouldn't help":         {[]any{node, cpu("x", "1", 1), cpu("y", "1500m", 20)}, nil, cpu("p", "1", 10), "Insufficient cpu"},
		"never more than there is": {[]any{node, cpu("x", "1", 1)}, nil, cpu("p", "3", 10), "Preemption is not helpful for scheduling"},
		"a taint stays": {
			[]any{tainted(node, "k", v1.TaintEffectNoSchedule), cpu("x", "2", 1)}, nil, cpu("p", "1", 10), "Preemption is not helpful for scheduling",
		},
		"a budget protects": {
			[]any{node, cpu("x", "1", 2), cpu("y", "1", 1).labels("app", "y")}, []*policyv1.PodDisruptionBudget{budget(0, "app", "y")}, cpu("p", "1", 10), "x@a",
		},
		"a budget that allows it doesn't": {
			[]any{node, cpu("x", "1", 2), cpu("y", "1", 1).labels("app", "y")}, []*policyv1.PodDisruptionBudget{budget(1, "app", "y")}, cpu("p", "1", 10), "y@a",
		},
		"a budget gives way": {
			[]any{node, cpu("x", "2", 1).labels("app", "x")}, []*policyv1.PodDisruptionBudget{budget(0, "app", "x")}, cpu("p", "1", 10), "x@a",
		},
		"a port": {[]any{node, makePod("x").hostPort(80, "").on("a"), cpu("y", "1", 1)}, nil, makePod("p").hostPort(80, "").priority(10), "x@a"},
		"the gentlest node": {
			[]any{node, makeNode("b"), cpu("x", "2", 5), makePod("y").requests("cpu", "2").priority(4).on("b")}, nil, cpu("p", "1", 10), "y@b",
		},
		"a place kept for another is taken": {
			[]any{node, cpu("x", "1", 1), cpu("kept", "1", 10).with(func(p *v1.Pod) { p.Spec.NodeName, p.Status.NominatedNodeName = "", "a" })},
			nil, cpu("p", "1", 10), "x@a",
		},
		"a place kept for one less important isn't": {
			[]any{node, cpu("x", "1", 1), cpu("kept", "1", 9).with(func(p *v1.Pod) { p.Spec.NodeName, p.Status.NominatedNodeName = "", "a" })},
			nil, cpu("p", "1", 10), "fits a",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newState(&storage{})
			for _, o := range tc.state {
				switch o := o.(type) {
				case *v1.Node:
					s.setNode(o)
				case *podBuilder:
					if o.pod.Status.NominatedNodeName != "" {
						s.nominate(newPodInfo(o.pod), o.pod.Status.NominatedNodeName)
					} else {
						s.confirm(newPodInfo(o.pod), o.pod.Spec.NodeName)
					}
				}
			}
			pod := tc.pod.obj()
			pod.Spec.NodeName = ""
			before := fmt.Sprint(s.nodes["a"].used, len(s.nodes["a"].pods))
			n, d := s.place(t.Context(), newPodInfo(pod))
			got := ""
			if n != nil {
				got = "fits " + n.name
			} else if found := s.preempt(t.Context(), newPodInfo(pod), d, tc.budgets); found != nil {
				var names []string
				for _, v := range found.victims {
					names = append(names, v.info.pod.Name)
				}
				got = strings.Join(names, ",") + "@" + found.node.name
			} else {
				for text := range d.eviction {
					got = text
				}
			}
			if got != tc.want {
				t.Errorf("%s, want %s", got, tc.want)
			}
			if after := fmt.Sprint(s.nodes["a"].used, len(s.nodes["a"].pods)); after != before {
				t.Errorf("the state was %s, and is %s", before, after)
			}
		})
	}
}

// keepDeleted has the fake API server delete gracefully: pods stay, terminating.
func (w *world) keepDeleted() {
	pods := v1.SchemeGroupVersion.WithResource("pods")
	w.client.PrependReactor("delete", "pods", func(action clienttesting.Action) (bool, runtime.Object, error) {
		obj, err := w.client.Tracker().Get(pods, action.GetNamespace(), action.(clienttesting.DeleteAction).GetName())
		if err != nil {
			return true, nil, err
		}
		pod := obj.(*v1.Pod).DeepCopy()
		now := metav1.NewTime(w.clock.Now())
		pod.DeletionTimestamp = &now
		return true, nil, w.client.Tracker().Update(pods, pod, pod.Namespace)
	})
}

// gone ends a pod that terminates.
func (w *world) gone(t *testing.T, name string) {
	t.Helper()
	if err := w.client.Tracker().Delete(v1.SchemeGroupVersion.WithResource("pods"), "ns", name); err != nil {
		t.Fatal(err)
	}
}

func (w *world) get(t *testing.T, name string) *v1.Pod {
	t.Helper()
	pod, err := w.client.CoreV1().Pods("ns").Get(context.Background(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

// A pod evicts, waits until its victim has ended, and is bound; who is less
// important doesn't get the room meanwhile.
func TestPreemption(t *testing.T) {
	w := newWorld(t, makeNode("n"), makePod("low").requests("cpu", "2").priority(1).on("n").obj())
	w.keepDeleted()
	w.create(t, makePod("high").requests("cpu", "2").priority(10).obj())
	const found = "0/1 nodes are available: 1 Insufficient cpu. preemption: found a potential placement for pod on node n, preempting 1 victims"
	w.wantEvent(t, "high Warning FailedScheduling: "+found)
	w.wantEvent(t, "low Normal Preempted: Preempted by pod uid-high on node n")
	low := w.get(t, "low")
	if low.DeletionTimestamp == nil || len(low.Status.Conditions) != 1 || low.Status.Conditions[0].Type != v1.DisruptionTarget ||
		low.Status.Conditions[0].Reason != "PreemptionByScheduler" || low.Status.Conditions[0].Message != "default-scheduler: preempting to accommodate a higher priority pod" {
		t.Errorf("the victim: %+v", low)
	}
	high := w.get(t, "high")
	if high.Status.NominatedNodeName != "n" || high.Status.Conditions[0].Message != found {
		t.Errorf("the preemptor: %+v", high.Status)
	}
	w.create(t, makePod("small").requests("cpu", "1").obj())
	w.wantEvent(t, "small Warning FailedScheduling: 0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.")
	w.gone(t, "low")
	w.wantEvent(t, "high Normal Scheduled: Successfully assigned ns/high to n")
	w.Binder.mu.Lock()
	defer w.Binder.mu.Unlock()
	if n := len(w.state.nominated); n != 0 {
		t.Errorf("%d pods have room kept for them", n)
	}
}

// Each pod of a class evicts for itself, none twice, and no more than there is.
func TestPreemptionByMany(t *testing.T) {
	w := newWorld(t, makeNode("n"),
		makePod("a").requests("cpu", "1").priority(1).began(1).on("n").obj(), makePod("b").requests("cpu", "1").priority(1).began(2).on("n").obj())
	w.keepDeleted()
	for _, name := range []string{"x", "y", "z"} {
		w.create(t, makePod(name).requests("cpu", "1").priority(10).obj())
	}
	counts := map[string]int{}
	for range 5 { // two evictions with their reasons, and a third pod that waits
		select {
		case e := <-w.events.ch:
			counts[e]++
		case <-time.After(30 * time.Second):
			t.Fatalf("events so far: %v", counts)
		}
	}
	var victims []string
	for e, n := range counts {
		if name, rest, _ := strings.Cut(e, " "); strings.HasPrefix(rest, "Normal Preempted") {
			victims = append(victims, name)
			if n != 1 {
				t.Errorf("%d times: %s", n, e)
			}
		}
	}
	slices.Sort(victims)
	if !slices.Equal(victims, []string{"a", "b"}) {
		t.Errorf("victims %v; events %v", victims, counts)
	}
	w.gone(t, "a")
	w.gone(t, "b")
	for scheduled := 0; scheduled < 2; {
		select {
		case e := <-w.events.ch:
			if strings.Contains(e, "Normal Scheduled") {
				scheduled++
			} else if !strings.HasPrefix(e, "z Warning FailedScheduling") { // which has got another reason
				t.Errorf("event %q after %v", e, counts)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("%d pods were bound", scheduled)
		}
	}
}

// A binder that comes after one that died goes on: it evicts nobody else.
func TestPreemptionOutlivesTheBinder(t *testing.T) {
	gone := metav1.NewTime(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	w := newWorld(t, makeNode("n"),
		makePod("victim").requests("cpu", "1").priority(1).on("n").with(func(p *v1.Pod) {
			p.DeletionTimestamp, p.Finalizers = &gone, []string{"x/y"}
			p.Status.Conditions = []v1.PodCondition{{Type: v1.DisruptionTarget, Status: v1.ConditionTrue, Reason: v1.PodReasonPreemptionByScheduler}}
		}).obj(),
		makePod("other").requests("cpu", "1").priority(1).on("n").obj(),
		makePod("high").requests("cpu", "1").priority(10).with(func(p *v1.Pod) { p.Status.NominatedNodeName = "n" }).obj())
	w.wantEvent(t, "high Warning FailedScheduling: 0/1 nodes are available: 1 Insufficient cpu. preemption: not eligible due to a terminating pod on the nominated node.")
	w.gone(t, "victim")
	w.wantEvent(t, "high Normal Scheduled: Successfully assigned ns/high to n")
	if w.get(t, "other").DeletionTimestamp != nil {
		t.Error("another pod was evicted")
	}
}

// Without its victims' end an eviction is tried again.
func TestEvictionFails(t *testing.T) {
	w := newWorld(t, makeNode("n"), makePod("low").requests("cpu", "2").priority(1).on("n").obj())
	w.keepDeleted()
	refuse := make(chan bool, 1)
	refuse <- true
	w.client.PrependReactor("delete", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
		select {
		case <-refuse:
			return true, nil, apierrors.NewInternalError(errors.New("no"))
		default:
			return false, nil, nil
		}
	})
	w.create(t, makePod("high").requests("cpu", "2").priority(10).obj())
	const found = "high Warning FailedScheduling: 0/1 nodes are available: 1 Insufficient cpu. preemption: found a potential placement for pod on node n, preempting 1 victims"
	w.wantEvent(t, found)
	failed := func() bool {
		w.Binder.mu.Lock()
		defer w.Binder.mu.Unlock()
		return w.queue.pods["uid-high"].failures > 0
	}
	for !failed() {
		time.Sleep(time.Millisecond) // the binder tells nobody that it will try again
	}
	w.clock.Step(firstRetry)
	w.wantEvent(t, found)
	w.wantEvent(t, "low Normal Preempted: Preempted by pod uid-high on node n")
	w.gone(t, "low")
	w.wantEvent(t, "high Normal Scheduled: Successfully assigned ns/high to n")
}

// Of a node that its pods leave otherwise nothing is left to keep.
func TestPreemptorGoes(t *testing.T) {
	w := newWorld(t, makeNode("n"), makePod("low").requests("cpu", "2").priority(1).on("n").obj())
	w.keepDeleted()
	w.create(t, makePod("high").requests("cpu", "2").priority(10).obj())
	w.wantEvent(t, "high Warning FailedScheduling: 0/1 nodes are available: 1 Insufficient cpu. preemption: found a potential placement for pod on node n, preempting 1 victims")
	w.wantEvent(t, "low Normal Preempted: Preempted by pod uid-high on node n")
	w.gone(t, "high")
	w.gone(t, "low")
	w.create(t, makePod("small").requests("cpu", "1").obj())
	w.wantEvent(t, "small Normal Scheduled: Successfully assigned ns/small to n")
	w.Binder.mu.Lock()
	defer w.Binder.mu.Unlock()
	if n := w.state.nominated[types.UID("uid-high")]; n != nil {
		t.Errorf("room is kept for a pod that is gone: %+v", n)
	}
}
