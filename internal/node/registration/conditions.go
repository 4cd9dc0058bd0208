package registration

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// pressureHold is how long a pressure is told after it was last seen, so that
// the condition doesn't flap (the kubelet's eviction-pressure-transition-period).
const pressureHold = 5 * time.Minute

// pressures is when each pressure was last seen.
type pressures map[v1.NodeConditionType]time.Time

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
	reading, err := r.cfg.Host.Reading()
	if err != nil {
		if o.notReady == "" {
			o.notReady = fmt.Sprintf("the machine can't be read: %v", err)
		}
		return o
	}
	if r.pressures == nil {
		r.pressures = pressures{}
	}
	o.under = r.pressures.update(reading, r.cfg.Clock.Now())
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

// update notes what a reading shows and tells which pressures hold now.
func (p pressures) update(r Reading, now time.Time) map[v1.NodeConditionType]bool {
	for kind, seen := range map[v1.NodeConditionType]bool{
		v1.NodeMemoryPressure: r.MemoryAvailable < minFreeMemory,
		v1.NodeDiskPressure:   r.DiskFree < minFreeDisk(r.DiskTotal) || r.InodesFree < r.InodesTotal/20,
		v1.NodePIDPressure:    r.TasksMax-r.Tasks < r.TasksMax/20,
	} {
		if seen {
			p[kind] = now
		}
	}
	under := map[v1.NodeConditionType]bool{}
	for kind, last := range p {
		under[kind] = now.Sub(last) < pressureHold
	}
	return under
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
