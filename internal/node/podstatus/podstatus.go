// Package podstatus turns a pod's spec and what the runtime has of it into the
// status that the API shows, as the kubelet of Kubernetes 1.37 does it.
//
// It is pure: the same input gives the same status, so that a status which
// couldn't be written before a crash comes out again after it. It doesn't decide
// anything (package plan does) and writes nothing.
package podstatus

import (
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	resourcehelper "k8s.io/component-helpers/resource"
	"k8s.io/kubernetes/pkg/apis/core/v1/helper/qos"

	"errand.dev/errand/internal/node/plan"
	"errand.dev/errand/internal/node/runtimepod"
)

// Waiting is why a container doesn't run: the reason and message of
// status.containerStatuses[].state.waiting.
type Waiting struct {
	Reason  string
	Message string
}

// Outcome is an end that the node has decided on, whatever the containers'
// exit codes say.
type Outcome struct {
	Reason  string // e.g. DeadlineExceeded
	Message string
	// Disruption, if set, is the pod's DisruptionTarget condition (KEP-3329). Its
	// times and generation don't matter.
	Disruption *v1.PodCondition
	// Announced tells that reason and condition are shown while containers are yet
	// to end, so that whoever comes after a crash goes on with it.
	Announced bool
}

// Resize is the state of a pod's in-place resize (KEP-1287). The pod's spec has the
// resources that it was given.
type Resize struct {
	// Pending is why it isn't given what it asks for; nil if it is.
	Pending *Waiting
	// Active tells that what it was given isn't in force everywhere yet: the status
	// tells of what it had. Error is what hinders that, "" for nothing.
	Active bool
	Error  string
}

// Input is what a status is made from.
type Input struct {
	Pod *v1.Pod
	// Previous is the status generated last, or the API's.
	Previous *v1.PodStatus
	Runtime  *runtimepod.Pod
	// RuntimeName begins container IDs ("errand://…").
	RuntimeName string
	// Waiting holds, by name, the containers that could not be started.
	Waiting map[string]Waiting
	// Started and Ready tell what probes say of a running container; nil, or true
	// for a container without the probe, stands for "yes".
	Started func(containerID string) bool
	Ready   func(containerID string) bool
	// Ended tells that nothing runs and nothing will run again.
	Ended bool
	// Ending tells that nothing will be started any more.
	Ending bool
	// Outcome, if set, makes an Ended pod Failed.
	Outcome *Outcome
	// Resize is how far an in-place resize has got.
	Resize Resize
	// HostIPs are the node's addresses, the primary first.
	HostIPs []string
	// RecursiveReadOnly tells that the runtime can mount recursively read-only.
	RecursiveReadOnly bool
	Now               metav1.Time

	// again tells whether a run is followed by another, whatever the policies say,
	// because all containers are restarted.
	again func(*runtimepod.Container) bool
}

// maxMessages bounds all termination messages of a pod together, in bytes.
const maxMessages = 12 * 1024

// Generate makes the status. The result shares nothing with the input.
func Generate(in Input) *v1.PodStatus {
	in.again = plan.Earlier(in.Pod, plan.Round(in.Pod, in.Runtime))
	if in.Ending || in.Ended || slices.ContainsFunc(in.Runtime.Alive(), in.again) {
		in.again = func(*runtimepod.Container) bool { return false }
	}
	s := &v1.PodStatus{
		QOSClass:           qos.GetPodQOS(in.Pod),
		ObservedGeneration: in.Pod.Generation,
		StartTime:          in.Previous.StartTime.DeepCopy(),
	}
	if s.StartTime.IsZero() {
		now := in.Now
		s.StartTime = &now
	}
	s.InitContainerStatuses = containerStatuses(in, in.Pod.Spec.InitContainers, in.Previous.InitContainerStatuses)
	s.ContainerStatuses = containerStatuses(in, in.Pod.Spec.Containers, in.Previous.ContainerStatuses)
	slices.SortFunc(s.ContainerStatuses, func(a, b v1.ContainerStatus) int { return strings.Compare(a.Name, b.Name) })
	s.EphemeralContainerStatuses = ephemeralStatuses(in)
	if in.Ended {
		endContainers(in.Pod, s)
	}
	setPhase(in, s)
	setAddresses(in, s)
	setResources(in, s)
	s.Conditions = conditions(in, s)
	normalize(in.Pod, s)
	return s
}

// Rejected is the status of a pod that the node refuses to run.
func Rejected(pod *v1.Pod, reason, message string) *v1.PodStatus {
	s := pod.Status.DeepCopy()
	s.QOSClass = qos.GetPodQOS(pod)
	s.Phase = v1.PodFailed
	s.Reason = reason
	s.Message = "Pod was rejected: " + message
	s.ObservedGeneration = pod.Generation
	return s
}

// setPhase sets phase, reason and message. A terminal phase is never left.
func setPhase(in Input, s *v1.PodStatus) {
	old := in.Previous
	s.Phase = phase(in, s)
	switch {
	case isTerminal(old.Phase):
		s.Phase = old.Phase
	case in.Ended && in.Outcome != nil:
		s.Phase, s.Reason, s.Message = v1.PodFailed, in.Outcome.Reason, in.Outcome.Message
		return
	case in.Outcome != nil && in.Outcome.Announced:
		if s.Phase = old.Phase; s.Phase == "" {
			s.Phase = v1.PodPending
		}
		s.Reason, s.Message = in.Outcome.Reason, in.Outcome.Message
		return
	case in.Ended && !isTerminal(s.Phase):
		s.Phase = v1.PodFailed
	case isTerminal(s.Phase) && !in.Ended:
		// Told only once nothing runs any more: who reads it may take over what
		// the pod had.
		s.Phase = old.Phase
		if s.Phase == "" {
			s.Phase = v1.PodPending
		}
	}
	if s.Phase == old.Phase {
		s.Reason, s.Message = old.Reason, old.Message
	}
}

func isTerminal(p v1.PodPhase) bool { return p == v1.PodSucceeded || p == v1.PodFailed }

// setAddresses keeps the pod's addresses after its sandbox is gone: they tell
// what the pod had.
func setAddresses(in Input, s *v1.PodStatus) {
	for i, ip := range in.HostIPs {
		if i == 0 {
			s.HostIP = ip
		}
		s.HostIPs = append(s.HostIPs, v1.HostIP{IP: ip})
	}
	ips := in.Runtime.IPs()
	if in.Pod.Spec.HostNetwork {
		ips = in.HostIPs
	}
	for _, ip := range ips {
		s.PodIPs = append(s.PodIPs, v1.PodIP{IP: ip})
	}
	if len(s.PodIPs) == 0 {
		s.PodIPs = slices.Clone(in.Previous.PodIPs)
	}
	if len(s.PodIPs) > 0 {
		s.PodIP = s.PodIPs[0].IP
	}
}

// setResources tells what the pod as a whole was given (KEP-2837, KEP-5419).
func setResources(in Input, s *v1.PodStatus) {
	pod, opts := in.Pod, resourcehelper.PodResourcesOptions{}
	s.AllocatedResources = resourcehelper.PodRequests(pod, opts)
	if in.Resize.Active && in.Previous.Resources != nil {
		s.Resources = in.Previous.Resources.DeepCopy()
		return
	}
	s.Resources = pod.Spec.Resources.DeepCopy()
	if s.Resources == nil {
		s.Resources = &v1.ResourceRequirements{}
	}
	s.Resources.Requests = resourcehelper.PodRequests(pod, opts)
	s.Resources.Limits = resourcehelper.PodLimits(pod, opts)
}

// normalize brings times to the API's precision, so that statuses can be
// compared, and messages to their share of what a pod may hold.
func normalize(pod *v1.Pod, s *v1.PodStatus) {
	share := maxMessages
	if n := len(pod.Spec.InitContainers) + len(pod.Spec.Containers) + len(pod.Spec.EphemeralContainers); n > 0 {
		share /= n
	}
	*s.StartTime = s.StartTime.Rfc3339Copy()
	for i := range s.Conditions {
		s.Conditions[i].LastTransitionTime = s.Conditions[i].LastTransitionTime.Rfc3339Copy()
	}
	for _, list := range [][]v1.ContainerStatus{s.InitContainerStatuses, s.ContainerStatuses, s.EphemeralContainerStatuses} {
		for i := range list {
			normalizeState(&list[i].State, share)
			normalizeState(&list[i].LastTerminationState, share)
		}
	}
}

func normalizeState(s *v1.ContainerState, share int) {
	if s.Running != nil {
		s.Running.StartedAt = s.Running.StartedAt.Rfc3339Copy()
	}
	if t := s.Terminated; t != nil {
		t.StartedAt, t.FinishedAt = t.StartedAt.Rfc3339Copy(), t.FinishedAt.Rfc3339Copy()
		if len(t.Message) > share {
			t.Message = t.Message[:share]
		}
	}
}
