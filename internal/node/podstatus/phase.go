package podstatus

import (
	v1 "k8s.io/api/core/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	"k8s.io/utils/ptr"

	"errand.dev/errand/internal/node/plan"
)

// tally counts how the containers of a pod stand.
type tally struct {
	waiting   int // never ran
	running   int
	stopped   int // ended, perhaps to run again
	final     int // of those, ended for good
	succeeded int // of those that stopped, with exit code 0

	initPending  int // init containers not done
	sidecarsDown int // sidecars that haven't started yet
	initFailed   bool
}

// phase is the pod's phase as its containers make it, before what the node has
// decided is taken into account.
func phase(in Input, s *v1.PodStatus) v1.PodPhase {
	t := count(in, s)
	starting := t.sidecarsDown > 0 && !plan.Initialized(in.Pod, in.Runtime)
	switch {
	case t.initFailed:
		return v1.PodFailed
	case t.initPending > 0, starting, t.waiting > 0:
		return v1.PodPending
	case t.running > 0:
		return v1.PodRunning
	case t.stopped == 0:
		return v1.PodPending
	case !in.Ended && t.final < t.stopped:
		return v1.PodRunning // something is to be restarted
	case t.succeeded == t.stopped:
		return v1.PodSucceeded
	default:
		return v1.PodFailed
	}
}

func count(in Input, s *v1.PodStatus) tally {
	var t tally
	for i := range in.Pod.Spec.InitContainers {
		t.addInit(in, &in.Pod.Spec.InitContainers[i], &s.InitContainerStatuses[i])
	}
	for i := range in.Pod.Spec.Containers {
		c := &in.Pod.Spec.Containers[i]
		cs, _ := podutil.GetContainerStatus(s.ContainerStatuses, c.Name)
		end := cs.State.Terminated
		if end == nil && cs.State.Waiting != nil {
			end = cs.LastTerminationState.Terminated
		}
		switch {
		case cs.State.Running != nil:
			t.running++
		case end == nil:
			t.waiting++
		default:
			t.addEnd(in, c, end)
		}
	}
	return t
}

// restarts tells whether the container runs again after this end.
func (in *Input) restarts(c *v1.Container, end *v1.ContainerStateTerminated) bool {
	if run := in.Runtime.Latest(c.Name); run != nil && in.again(run) {
		return true
	}
	return podutil.ContainerShouldRestart(*c, in.Pod.Spec, end.ExitCode)
}

func (t *tally) addEnd(in Input, c *v1.Container, end *v1.ContainerStateTerminated) {
	t.stopped++
	if !in.restarts(c, end) {
		t.final++
	}
	if end.ExitCode == 0 {
		t.succeeded++
	}
}

func (t *tally) addInit(in Input, c *v1.Container, s *v1.ContainerStatus) {
	if podutil.IsRestartableInitContainer(c) {
		t.addSidecar(s)
		return
	}
	end := s.State.Terminated
	if end == nil && s.State.Waiting != nil {
		end = s.LastTerminationState.Terminated
	}
	switch {
	case end == nil:
		t.initPending++
	case end.ExitCode == 0 && s.State.Terminated != nil:
	case end.ExitCode != 0 && !in.restarts(c, end):
		t.initFailed = true
	case s.State.Terminated == nil || end.ExitCode != 0:
		t.initPending++
	}
}

// addSidecar: a sidecar that has ended doesn't count, one that runs keeps the
// pod running.
func (t *tally) addSidecar(s *v1.ContainerStatus) {
	switch {
	case s.State.Running != nil:
		t.running++
		if !ptr.Deref(s.Started, false) {
			t.sidecarsDown++
		}
	case s.State.Waiting != nil && s.LastTerminationState.Terminated == nil:
		t.sidecarsDown++
		t.waiting++
	}
}
