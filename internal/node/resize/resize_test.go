package resize

import (
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func list(cpu, memory string) v1.ResourceList {
	l := v1.ResourceList{}
	for name, q := range map[v1.ResourceName]string{v1.ResourceCPU: cpu, v1.ResourceMemory: memory} {
		if q != "" {
			l[name] = resource.MustParse(q)
		}
	}
	return l
}

// pod asks for so much.
func pod(uid, cpu, memory string) *v1.Pod {
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{UID: types.UID(uid)},
		Spec:       v1.PodSpec{Containers: []v1.Container{{Name: "c", Resources: v1.ResourceRequirements{Requests: list(cpu, memory)}}}},
	}
}

func TestLedger(t *testing.T) {
	l := NewLedger(list("4", "4Gi"))
	l.Put(pod("a", "1", "1Gi"))
	l.Put(pod("b", "2", "1Gi"))
	for _, step := range []struct {
		what string
		pod  *v1.Pod
		want string // reason and message
	}{
		{"as much as is left", pod("a", "2", "3Gi"), ""},
		{"back", pod("a", "1", "1Gi"), ""},
		{"more than the others leave", pod("a", "2500m", "1Gi"), "Deferred: Node didn't have enough resource: cpu, requested: 2500, used: 2000, capacity: 4000"},
		{"more memory than the node has", pod("a", "1", "5Gi"), "Infeasible: Node didn't have enough capacity: memory, requested: 5368709120, capacity: 4294967296"},
		{"less of one, more of the other", pod("a", "500m", "3Gi"), ""},
		{"what the first gave back", pod("b", "3500m", "1Gi"), ""},
		{"nothing more", pod("b", "3501m", "1Gi"), "Deferred: Node didn't have enough resource: cpu, requested: 3501, used: 500, capacity: 4000"},
	} {
		got := ""
		if r := l.Resize(step.pod); r != nil {
			got = r.Reason + ": " + r.Message
		}
		if got != step.want {
			t.Errorf("%s: %q, want %q", step.what, got, step.want)
		}
	}
	if waiting := l.Deferred(); !slices.Equal(waiting, []types.UID{"b"}) {
		t.Errorf("%v wait for room", waiting)
	}
	l.Drop("a")
	if r := l.Resize(pod("b", "4", "4Gi")); r != nil || len(l.Deferred()) > 0 {
		t.Errorf("alone on the node: %+v", r)
	}
}

// Who waits is served by priority, then by quality of service, then by time; and who can't be served keeps nobody.
func TestLedgerOrder(t *testing.T) {
	l := NewLedger(list("4", "4Gi"))
	first := func(uid, cpu string, priority int32, guaranteed bool) *v1.Pod {
		p := pod(uid, cpu, "")
		p.Spec.Priority = &priority
		if guaranteed {
			p = pod(uid, cpu, "1Mi")
			p.Spec.Containers[0].Resources.Limits = p.Spec.Containers[0].Resources.Requests
			p.Spec.Priority = &priority
		}
		return p
	}
	full, big := pod("full", "3", ""), first("big", "4", 2000, false)
	asks := []*v1.Pod{first("late", "2", 0, false), first("guaranteed", "2", 0, true), first("important", "2", 1000, false)}
	l.Put(full)
	for _, p := range append(asks, big) {
		l.Put(pod(string(p.UID), "100m", ""))
	}
	for _, p := range append(asks, big) {
		if r := l.Resize(p); r == nil || r.Reason != v1.PodReasonDeferred {
			t.Fatalf("%s: %+v", p.UID, r)
		}
	}
	l.Drop("full")
	for i := len(asks) - 1; i >= 0; i-- {
		for _, p := range asks[:i] {
			if r := l.Resize(p); r == nil || !strings.Contains(r.Message, "comes first") {
				t.Errorf("%s before %s: %+v", p.UID, asks[i].UID, r)
			}
		}
		if r := l.Resize(asks[i]); r != nil {
			t.Errorf("%s: %+v", asks[i].UID, r)
		}
		l.Drop(asks[i].UID)
	}
	l.Put(pod("late", "100m", ""))
	l.Withdraw("big")
	if r := l.Resize(asks[0]); r != nil || len(l.Deferred()) > 0 {
		t.Errorf("after the others have gone: %+v, %v wait", r, l.Deferred())
	}
}

// Pods that are new are admitted in their order; one that has gone can't come back by a resize.
func TestAdmit(t *testing.T) {
	l := NewLedger(list("4", "4Gi"))
	for _, step := range []struct {
		pod  *v1.Pod
		want string
	}{
		{pod("a", "3", "1Gi"), ""},
		{pod("b", "2", "1Gi"), "OutOfcpu: Node didn't have enough resource: cpu, requested: 2000, used: 3000, capacity: 4000"},
		{pod("c", "", "4Gi"), "OutOfmemory: Node didn't have enough resource: memory, requested: 4294967296, used: 1073741824, capacity: 4294967296"},
		{pod("d", "1", "3Gi"), ""},
		{pod("e", "", ""), ""},
	} {
		got := ""
		if r := l.Admit(step.pod); r != nil {
			got = r.Reason + ": " + r.Message
		}
		if got != step.want {
			t.Errorf("%s: %q, want %q", step.pod.UID, got, step.want)
		}
	}
	for _, uid := range []types.UID{"a", "b", "c", "d"} {
		l.Drop(uid)
	}
	if r := l.Resize(pod("a", "4", "4Gi")); r != nil {
		t.Error(r)
	}
	if r := l.Admit(pod("f", "4", "4Gi")); r != nil {
		t.Errorf("a pod that has gone takes room: %s", r.Message)
	}
}

// Before all pods are known nothing is decided; then those who asked are to ask again.
func TestLedgerComplete(t *testing.T) {
	l := NewLedger(list("4", "4Gi"))
	if !l.TooEarly("a") || !slices.Equal(l.Deferred(), []types.UID{"a"}) {
		t.Error("a decision before all pods are known")
	}
	l.Complete()
	if len(l.Deferred()) != 1 {
		t.Error("who was too early isn't to ask again")
	}
	if l.TooEarly("a") || len(l.Deferred()) != 0 {
		t.Error("who has asked again is still to")
	}
}

// On a node that has too much on it, because it shrank say, what is unchanged or given back needs no room.
func TestLedgerOvercommitted(t *testing.T) {
	l := NewLedger(list("1", "1Gi"))
	l.Put(pod("a", "3", "512Mi"))
	if r := l.Resize(pod("a", "2", "1Gi")); r != nil {
		t.Error(r)
	}
}

func TestGiven(t *testing.T) {
	p := pod("a", "2", "1Gi")
	p.Spec.Containers[0].Resources.Limits = v1.ResourceList{v1.ResourceCPU: resource.MustParse("3"), "example.com/gpu": resource.MustParse("1")}
	if Given(p) != p {
		t.Error("a pod without a status isn't given what it asks for")
	}
	p.Status.ContainerStatuses = []v1.ContainerStatus{{
		Name: "c", AllocatedResources: list("1", "1Gi"), Resources: &v1.ResourceRequirements{Requests: list("1", "1Gi"), Limits: list("", "2Gi")},
	}}
	given := Given(p)
	got := given.Spec.Containers[0].Resources
	if got.Requests.Cpu().String() != "1" || got.Limits.Memory().String() != "2Gi" || !got.Limits.Cpu().IsZero() || got.Limits.Name("example.com/gpu", resource.DecimalSI).String() != "1" {
		t.Errorf("given is %+v", got)
	}
	if p.Spec.Containers[0].Resources.Requests.Cpu().String() != "2" || Same(given, p) {
		t.Error("the pod itself was changed")
	}
	if !Same(As(p, given), given) || As(given, given) != given {
		t.Error("As")
	}
	p.Status.ContainerStatuses[0].AllocatedResources, p.Status.ContainerStatuses[0].Resources = p.Spec.Containers[0].Resources.Requests, &p.Spec.Containers[0].Resources
	if Given(p) != p {
		t.Error("a pod that has what it asks for is another")
	}
}

func TestNeedsRestart(t *testing.T) {
	c := &v1.Container{ResizePolicy: []v1.ContainerResizePolicy{
		{ResourceName: v1.ResourceCPU, RestartPolicy: v1.NotRequired}, {ResourceName: v1.ResourceMemory, RestartPolicy: v1.RestartContainer},
	}}
	if NeedsRestart(c, true, false) || !NeedsRestart(c, true, true) || NeedsRestart(&v1.Container{}, true, true) {
		t.Error("resizePolicy isn't followed")
	}
}
