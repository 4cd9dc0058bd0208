package podstatus

import (
	"fmt"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	"k8s.io/utils/ptr"

	"errand.dev/errand/internal/node/plan"
)

// The kubelet's reasons.
const (
	reasonCompleted      = "PodCompleted"
	reasonFailed         = "PodFailed"
	reasonNotReady       = "ContainersNotReady"
	reasonNotInitialized = "ContainersNotInitialized"
	reasonGates          = "ReadinessGatesNotReady"
	reasonSandbox        = "PodSandboxNotReady"
	reasonRestartsAll    = "RestartAllContainersStarted"
)

// Owned tells whether the node, and nobody else, writes conditions of the type.
func Owned(t v1.PodConditionType) bool {
	switch t {
	case v1.PodReadyToStartContainers, v1.PodInitialized, v1.PodReady, v1.ContainersReady, v1.PodScheduled,
		v1.PodResizePending, v1.PodResizeInProgress, v1.AllContainersRestarting:
		return true
	}
	return false
}

// Disruption returns the DisruptionTarget condition, which others set, too, if it
// is the node's; nil otherwise.
func Disruption(s *v1.PodStatus) *v1.PodCondition {
	_, c := podutil.GetPodCondition(s, v1.DisruptionTarget)
	if c == nil || c.Status != v1.ConditionTrue || c.Reason != v1.PodReasonTerminationByKubelet {
		return nil
	}
	return c
}

// conditions returns the conditions of others as they stand in the API, and
// then ours in the kubelet's order.
func conditions(in Input, s *v1.PodStatus) []v1.PodCondition {
	var all []v1.PodCondition
	disruption := disruption(in)
	for _, c := range in.Pod.Status.Conditions {
		if !Owned(c.Type) && (c.Type != v1.DisruptionTarget || disruption == nil) {
			all = append(all, c)
		}
	}
	if disruption != nil {
		all = append(all, *disruption)
	}
	containersReady := containersReady(in, s)
	ours := []v1.PodCondition{
		readyToStart(in),
		initialized(in, s),
		ready(in, all, containersReady),
		containersReady,
		{Type: v1.PodScheduled, Status: v1.ConditionTrue},
	}
	ours = append(ours, restarting(in, s)...)
	for _, c := range append(ours, resizeConditions(in)...) {
		c.ObservedGeneration = in.Pod.Generation
		c.LastTransitionTime = in.Now
		if _, old := podutil.GetPodCondition(in.Previous, c.Type); old != nil && old.Status == c.Status {
			c.LastTransitionTime = old.LastTransitionTime
		}
		all = append(all, c)
	}
	return all
}

// restarting is AllContainersRestarting (KEP-5532), of pods with a rule for that.
func restarting(in Input, s *v1.PodStatus) []v1.PodCondition {
	if !podutil.AllContainersCouldRestart(&in.Pod.Spec) {
		return nil
	}
	c := v1.PodCondition{Type: v1.AllContainersRestarting, Status: v1.ConditionFalse}
	switch {
	case s.Phase == v1.PodSucceeded:
		c.Reason = reasonCompleted
	case s.Phase == v1.PodFailed:
		c.Reason = reasonFailed
	case plan.Round(in.Pod, in.Runtime) > in.Runtime.Round():
		c.Status, c.Reason, c.Message = v1.ConditionTrue, reasonRestartsAll, "A container ended as a restart rule for all containers has it"
	}
	return []v1.PodCondition{c}
}

// disruption is the condition of a pod that the node disrupts; nil if it doesn't.
func disruption(in Input) *v1.PodCondition {
	if in.Outcome == nil || in.Outcome.Disruption == nil {
		return nil
	}
	c := *in.Outcome.Disruption
	c.ObservedGeneration, c.LastTransitionTime = in.Pod.Generation, in.Now
	for _, s := range []*v1.PodStatus{in.Previous, &in.Pod.Status} {
		if _, old := podutil.GetPodCondition(s, c.Type); old != nil && old.Status == c.Status {
			c.LastTransitionTime = old.LastTransitionTime
		}
	}
	return &c
}

// resizeConditions are there only as long as they are true.
func resizeConditions(in Input) []v1.PodCondition {
	var conditions []v1.PodCondition
	if in.Ended {
		return nil
	}
	if p := in.Resize.Pending; p != nil {
		conditions = append(conditions, v1.PodCondition{Type: v1.PodResizePending, Status: v1.ConditionTrue, Reason: p.Reason, Message: p.Message})
	}
	if in.Resize.Active {
		c := v1.PodCondition{Type: v1.PodResizeInProgress, Status: v1.ConditionTrue}
		if in.Resize.Error != "" {
			c.Reason, c.Message = v1.PodReasonError, in.Resize.Error
		}
		conditions = append(conditions, c)
	}
	return conditions
}

// readyToStart is PodReadyToStartContainers (KEP-3085). An ended pod's sandbox is
// as good as gone.
func readyToStart(in Input) v1.PodCondition {
	c := v1.PodCondition{Type: v1.PodReadyToStartContainers, Status: v1.ConditionTrue}
	message := plan.SandboxUnusable(in.Runtime)
	if message == "" && in.Ended {
		message = "pod sandbox is not ready"
	}
	if message != "" {
		c.Status, c.Reason, c.Message = v1.ConditionFalse, reasonSandbox, message
	}
	return c
}

func initialized(in Input, s *v1.PodStatus) v1.PodCondition {
	c := v1.PodCondition{Type: v1.PodInitialized, Status: v1.ConditionTrue}
	if s.Phase == v1.PodSucceeded {
		c.Reason = reasonCompleted
		return c
	}
	if _, old := podutil.GetPodCondition(in.Previous, c.Type); podutil.AllContainersCouldRestart(&in.Pod.Spec) && old != nil && old.Status == c.Status {
		return c // once and for all, also if all containers run again
	}
	for i := range s.ContainerStatuses {
		if s.ContainerStatuses[i].State.Waiting == nil {
			return c // regular containers run, or have run
		}
	}
	var incomplete []string
	for i := range in.Pod.Spec.InitContainers {
		spec, cs := &in.Pod.Spec.InitContainers[i], &s.InitContainerStatuses[i]
		done := cs.Ready
		if podutil.IsRestartableInitContainer(spec) {
			done = ptr.Deref(cs.Started, false)
		}
		if !done {
			incomplete = append(incomplete, spec.Name)
		}
	}
	if len(incomplete) > 0 {
		c.Status, c.Reason = v1.ConditionFalse, reasonNotInitialized
		c.Message = fmt.Sprintf("containers with incomplete status: %s", incomplete)
	}
	return c
}

func containersReady(in Input, s *v1.PodStatus) v1.PodCondition {
	c := v1.PodCondition{Type: v1.ContainersReady, Status: v1.ConditionFalse}
	switch s.Phase {
	case v1.PodSucceeded:
		c.Reason = reasonCompleted
		return c
	case v1.PodFailed:
		c.Reason = reasonFailed
		return c
	}
	var unready []string
	for i := range in.Pod.Spec.InitContainers {
		if spec := &in.Pod.Spec.InitContainers[i]; podutil.IsRestartableInitContainer(spec) && !s.InitContainerStatuses[i].Ready {
			unready = append(unready, spec.Name)
		}
	}
	for i := range in.Pod.Spec.Containers {
		name := in.Pod.Spec.Containers[i].Name
		if cs, ok := podutil.GetContainerStatus(s.ContainerStatuses, name); !ok || !cs.Ready {
			unready = append(unready, name)
		}
	}
	if len(unready) > 0 {
		c.Reason = reasonNotReady
		c.Message = fmt.Sprintf("containers with unready status: %s", unready)
		return c
	}
	c.Status = v1.ConditionTrue
	return c
}

// ready is ContainersReady and all readiness gates (KEP-580).
func ready(in Input, others []v1.PodCondition, containers v1.PodCondition) v1.PodCondition {
	c := containers
	c.Type = v1.PodReady
	if c.Status != v1.ConditionTrue {
		return c
	}
	var missing []string
	for _, gate := range in.Pod.Spec.ReadinessGates {
		i := slices.IndexFunc(others, func(o v1.PodCondition) bool { return o.Type == gate.ConditionType })
		switch {
		case i < 0:
			missing = append(missing, fmt.Sprintf("corresponding condition of pod readiness gate %q does not exist.", gate.ConditionType))
		case others[i].Status != v1.ConditionTrue:
			missing = append(missing, fmt.Sprintf("the status of pod readiness gate %q is not \"True\", but %v", gate.ConditionType, others[i].Status))
		}
	}
	if len(missing) > 0 {
		c.Status, c.Reason, c.Message = v1.ConditionFalse, reasonGates, strings.Join(missing, ", ")
	}
	return c
}
