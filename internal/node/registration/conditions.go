package registration

import (
	"context"
	"fmt"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// pressures are the conditions that the eviction manager decides on.
var pressures = []v1.NodeConditionType{v1.NodeMemoryPressure, v1.NodeDiskPressure, v1.NodePIDPressure}

// observation is what a check saw.
type observation struct {
	notReady string // why pods can't run; "" if they can
	under    map[v1.NodeConditionType]bool
	runtime  *runtimeapi.StatusResponse // nil if the runtime didn't answer
	version  *runtimeapi.VersionResponse
}

func (r *Registration) observe(ctx context.Context) observation {
	var o observation
	var err error
	if o.runtime, err = r.cfg.Runtime.Status(ctx, false); err != nil {
		o.notReady = fmt.Sprintf("container runtime is down: %v", err)
	} else {
		o.notReady = runtimeProblem(o.runtime.GetStatus())
	}
	if o.version, err = r.cfg.Runtime.Version(ctx, ""); err != nil && o.notReady == "" {
		o.notReady = fmt.Sprintf("container runtime is down: %v", err)
	}
	o.under = map[v1.NodeConditionType]bool{}
	for _, kind := range pressures {
		o.under[kind] = r.cfg.Under != nil && r.cfg.Under(kind)
	}
	return o
}

// runtimeProblem says which of the runtime's required conditions is not met, as
// the kubelet does; "" if all are.
func runtimeProblem(status *runtimeapi.RuntimeStatus) string {
	var problems []string
	for _, required := range []struct{ kind, text string }{
		{runtimeapi.RuntimeReady, "container runtime not ready"},
		{runtimeapi.NetworkReady, "container runtime network not ready"},
	} {
		i := slices.IndexFunc(status.GetConditions(), func(c *runtimeapi.RuntimeCondition) bool { return c.Type == required.kind })
		switch {
		case i < 0:
			problems = append(problems, fmt.Sprintf("%s: %s is not reported", required.text, required.kind))
		case !status.Conditions[i].Status:
			c := status.Conditions[i]
			problems = append(problems, fmt.Sprintf("%s: %s=false reason:%s message:%s", required.text, c.Type, c.Reason, c.Message))
		}
	}
	if len(problems) > 1 {
		return "[" + strings.Join(problems, ", ") + "]"
	}
	return strings.Join(problems, "")
}

// conditions are the Node's, in the kubelet's order, with its reasons. Those of
// old that keep their status keep their transition time and heartbeat; foreign
// ones stay.
func conditions(old []v1.NodeCondition, o observation, now metav1.Time) []v1.NodeCondition {
	pressure := func(kind v1.NodeConditionType, bad, good [2]string) v1.NodeCondition {
		if o.under[kind] {
			return v1.NodeCondition{Type: kind, Status: v1.ConditionTrue, Reason: bad[0], Message: bad[1]}
		}
		return v1.NodeCondition{Type: kind, Status: v1.ConditionFalse, Reason: good[0], Message: good[1]}
	}
	ready := v1.NodeCondition{Type: v1.NodeReady, Status: v1.ConditionTrue, Reason: "KubeletReady", Message: "errand is posting ready status"}
	if o.notReady != "" {
		ready = v1.NodeCondition{Type: v1.NodeReady, Status: v1.ConditionFalse, Reason: "KubeletNotReady", Message: o.notReady}
	}
	ours := []v1.NodeCondition{
		pressure(v1.NodeMemoryPressure,
			[2]string{"KubeletHasInsufficientMemory", "errand has insufficient memory available"},
			[2]string{"KubeletHasSufficientMemory", "errand has sufficient memory available"}),
		pressure(v1.NodeDiskPressure,
			[2]string{"KubeletHasDiskPressure", "errand has disk pressure"},
			[2]string{"KubeletHasNoDiskPressure", "errand has no disk pressure"}),
		pressure(v1.NodePIDPressure,
			[2]string{"KubeletHasInsufficientPID", "errand has insufficient PID available"},
			[2]string{"KubeletHasSufficientPID", "errand has sufficient PID available"}),
		ready,
	}
	var foreign []v1.NodeCondition
	for _, was := range old {
		if !slices.ContainsFunc(ours, func(c v1.NodeCondition) bool { return c.Type == was.Type }) {
			foreign = append(foreign, was)
		}
	}
	for i := range ours {
		ours[i].LastTransitionTime, ours[i].LastHeartbeatTime = now, now
		for _, was := range old {
			if was.Type == ours[i].Type && was.Status == ours[i].Status {
				ours[i].LastTransitionTime, ours[i].LastHeartbeatTime = was.LastTransitionTime, was.LastHeartbeatTime
			}
		}
	}
	return append(foreign, ours...)
}

// changes are the events that the kubelet records of conditions that have changed
// from old to now: their reasons. A pressure is also told of if it is the first thing
// known; that there is none isn't.
func changes(old, now []v1.NodeCondition) []string {
	reasons := map[v1.NodeConditionType][2]string{
		v1.NodeMemoryPressure: {"NodeHasInsufficientMemory", "NodeHasSufficientMemory"},
		v1.NodeDiskPressure:   {"NodeHasDiskPressure", "NodeHasNoDiskPressure"},
		v1.NodePIDPressure:    {"NodeHasInsufficientPID", "NodeHasSufficientPID"},
		v1.NodeReady:          {"NodeReady", "NodeNotReady"},
	}
	var out []string
	for _, c := range now {
		names, ours := reasons[c.Type]
		if !ours {
			continue
		}
		i := slices.IndexFunc(old, func(was v1.NodeCondition) bool { return was.Type == c.Type })
		on := c.Status == v1.ConditionTrue
		switch {
		case i < 0 && (!on || c.Type == v1.NodeReady), i >= 0 && old[i].Status == c.Status:
		case on:
			out = append(out, names[0])
		default:
			out = append(out, names[1])
		}
	}
	return out
}

// beat sets the heartbeat of the conditions that are ours.
func beat(conditions []v1.NodeCondition, now metav1.Time) {
	for i := range conditions {
		switch conditions[i].Type {
		case v1.NodeReady, v1.NodeMemoryPressure, v1.NodeDiskPressure, v1.NodePIDPressure:
			conditions[i].LastHeartbeatTime = now
		}
	}
}

// taints are the Node's: those that stand for its conditions and for
// spec.unschedulable, as the node lifecycle controller would set them, and all
// that are foreign.
func taints(old []v1.Taint, o observation, unschedulable bool) []v1.Taint {
	want := []struct {
		key string
		on  bool
	}{
		{v1.TaintNodeNotReady, o.notReady != ""},
		{v1.TaintNodeMemoryPressure, o.under[v1.NodeMemoryPressure]},
		{v1.TaintNodeDiskPressure, o.under[v1.NodeDiskPressure]},
		{v1.TaintNodePIDPressure, o.under[v1.NodePIDPressure]},
		{v1.TaintNodeUnschedulable, unschedulable},
	}
	var out []v1.Taint
	for _, t := range old {
		ours := false
		for _, w := range want {
			ours = ours || t.Key == w.key && t.Effect == v1.TaintEffectNoSchedule
		}
		if !ours {
			out = append(out, t)
		}
	}
	for _, w := range want {
		if w.on {
			out = append(out, v1.Taint{Key: w.key, Effect: v1.TaintEffectNoSchedule})
		}
	}
	return out
}
