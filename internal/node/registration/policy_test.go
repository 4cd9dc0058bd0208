package registration

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestAllocatable(t *testing.T) {
	for _, tc := range []struct {
		name     string
		facts    Facts
		reserved v1.ResourceList // nil: the default
		want     map[v1.ResourceName]string
	}{
		{
			"a laptop", Facts{MilliCPU: 8000, Memory: 16 * gibi, Disk: 1000 * gibi, HugePages: map[int64]int64{2 * mebi: 0}}, nil,
			map[v1.ResourceName]string{"cpu": "8", "memory": "16084Mi", "ephemeral-storage": "990Gi", "pods": "110", "hugepages-2Mi": "0"},
		},
		{
			"a small edge box", Facts{MilliCPU: 1000, Memory: 1000 * mebi, Disk: 10 * gibi}, nil,
			map[v1.ResourceName]string{"cpu": "1", "memory": "900Mi", "ephemeral-storage": "9Gi", "pods": "110"},
		},
		{
			"huge pages are no memory", Facts{MilliCPU: 1000, Memory: 10 * gibi, HugePages: map[int64]int64{gibi: 4}}, v1.ResourceList{},
			map[v1.ResourceName]string{"cpu": "1", "memory": "6Gi", "ephemeral-storage": "0", "pods": "110", "hugepages-1Gi": "4Gi"},
		},
		{
			"more reserved than there is", Facts{MilliCPU: 500, Memory: mebi},
			v1.ResourceList{v1.ResourceCPU: resource.MustParse("1"), v1.ResourceMemory: resource.MustParse("512Ki"), "x/y": resource.MustParse("1")},
			map[v1.ResourceName]string{"cpu": "0", "memory": "512Ki", "ephemeral-storage": "0", "pods": "110"},
		},
	} {
		reserved := tc.reserved
		if reserved == nil {
			reserved = DefaultReserved(tc.facts)
		}
		got := map[v1.ResourceName]string{}
		for name, q := range allocatable(capacity(tc.facts, DefaultMaxPods), reserved) {
			got[name] = q.String()
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, diff)
		}
	}
}

func TestRuntimeProblem(t *testing.T) {
	ok := func(kind string) *runtimeapi.RuntimeCondition {
		return &runtimeapi.RuntimeCondition{Type: kind, Status: true}
	}
	bad := &runtimeapi.RuntimeCondition{Type: "NetworkReady", Reason: "NoBridge", Message: "no bridge"}
	for _, tc := range []struct {
		conditions []*runtimeapi.RuntimeCondition
		want       string
	}{
		{[]*runtimeapi.RuntimeCondition{ok("RuntimeReady"), ok("NetworkReady")}, ""},
		{[]*runtimeapi.RuntimeCondition{ok("RuntimeReady"), bad}, "container runtime network not ready: NetworkReady=false reason:NoBridge message:no bridge"},
		{nil, "[container runtime not ready: RuntimeReady is not reported, container runtime network not ready: NetworkReady is not reported]"},
	} {
		if got := runtimeProblem(&runtimeapi.RuntimeStatus{Conditions: tc.conditions}); got != tc.want {
			t.Errorf("%v: %q, want %q", tc.conditions, got, tc.want)
		}
	}
}

func TestConditions(t *testing.T) {
	t0 := metav1.NewTime(time.Unix(1000, 0))
	t1 := metav1.NewTime(time.Unix(2000, 0))
	foreign := v1.NodeCondition{Type: "FrozenDisk", Status: v1.ConditionTrue}
	first := conditions([]v1.NodeCondition{foreign}, observation{}, t0)
	want := []v1.NodeCondition{
		foreign,
		{Type: v1.NodeMemoryPressure, Status: v1.ConditionFalse, Reason: "KubeletHasSufficientMemory", Message: "errand has sufficient memory available", LastHeartbeatTime: t0, LastTransitionTime: t0},
		{Type: v1.NodeDiskPressure, Status: v1.ConditionFalse, Reason: "KubeletHasNoDiskPressure", Message: "errand has no disk pressure", LastHeartbeatTime: t0, LastTransitionTime: t0},
		{Type: v1.NodePIDPressure, Status: v1.ConditionFalse, Reason: "KubeletHasSufficientPID", Message: "errand has sufficient PID available", LastHeartbeatTime: t0, LastTransitionTime: t0},
		{Type: v1.NodeReady, Status: v1.ConditionTrue, Reason: "KubeletReady", Message: "errand is posting ready status", LastHeartbeatTime: t0, LastTransitionTime: t0},
	}
	if diff := cmp.Diff(want, first); diff != "" {
		t.Error(diff)
	}
	second := conditions(first, observation{notReady: "why", under: map[v1.NodeConditionType]bool{v1.NodeDiskPressure: true}}, t1)
	want[2] = v1.NodeCondition{Type: v1.NodeDiskPressure, Status: v1.ConditionTrue, Reason: "KubeletHasDiskPressure", Message: "errand has disk pressure", LastHeartbeatTime: t1, LastTransitionTime: t1}
	want[4] = v1.NodeCondition{Type: v1.NodeReady, Status: v1.ConditionFalse, Reason: "KubeletNotReady", Message: "why", LastHeartbeatTime: t1, LastTransitionTime: t1}
	if diff := cmp.Diff(want, second); diff != "" {
		t.Error(diff)
	}
}

func TestTaints(t *testing.T) {
	users := v1.Taint{Key: "dedicated", Value: "x", Effect: v1.TaintEffectNoExecute}
	stale := v1.Taint{Key: v1.TaintNodeNotReady, Effect: v1.TaintEffectNoSchedule}
	for _, tc := range []struct {
		name          string
		o             observation
		unschedulable bool
		want          []string
	}{
		{"well", observation{}, false, []string{"dedicated"}},
		{"not ready", observation{notReady: "x"}, false, []string{"dedicated", v1.TaintNodeNotReady}},
		{"cordoned", observation{}, true, []string{"dedicated", v1.TaintNodeUnschedulable}},
		{
			"under pressure", observation{under: map[v1.NodeConditionType]bool{v1.NodeMemoryPressure: true, v1.NodePIDPressure: true}}, false,
			[]string{"dedicated", v1.TaintNodeMemoryPressure, v1.TaintNodePIDPressure},
		},
	} {
		var got []string
		for _, taint := range taints([]v1.Taint{stale, users}, tc.o, tc.unschedulable) {
			got = append(got, taint.Key)
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s: %s", tc.name, diff)
		}
	}
}

func TestChanges(t *testing.T) {
	c := func(kind v1.NodeConditionType, status v1.ConditionStatus) v1.NodeCondition {
		return v1.NodeCondition{Type: kind, Status: status}
	}
	list := func(c ...v1.NodeCondition) []v1.NodeCondition { return c }
	for _, tc := range []struct {
		name     string
		old, now []v1.NodeCondition
		want     []string
	}{
		{"a new node, well", nil, list(c(v1.NodeDiskPressure, v1.ConditionFalse), c(v1.NodeReady, v1.ConditionTrue)), nil},
		{"a new node under pressure", nil, list(c(v1.NodePIDPressure, v1.ConditionTrue)), []string{"NodeHasInsufficientPID"}},
		{
			"everything turns", list(c(v1.NodeMemoryPressure, v1.ConditionFalse), c(v1.NodeDiskPressure, v1.ConditionTrue), c(v1.NodeReady, v1.ConditionTrue), c("Foreign", v1.ConditionTrue)),
			list(c(v1.NodeMemoryPressure, v1.ConditionTrue), c(v1.NodeDiskPressure, v1.ConditionFalse), c(v1.NodeReady, v1.ConditionFalse), c("Foreign", v1.ConditionFalse)),
			[]string{"NodeHasInsufficientMemory", "NodeHasNoDiskPressure", "NodeNotReady"},
		},
		{"nothing does", list(c(v1.NodeDiskPressure, v1.ConditionTrue)), list(c(v1.NodeDiskPressure, v1.ConditionTrue)), nil},
	} {
		if diff := cmp.Diff(tc.want, changes(tc.old, tc.now)); diff != "" {
			t.Errorf("%s: %s", tc.name, diff)
		}
	}
}
