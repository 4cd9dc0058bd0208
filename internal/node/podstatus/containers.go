package podstatus

import (
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	"k8s.io/utils/ptr"

	"errand.dev/errand/internal/node/plan"
	"errand.dev/errand/internal/node/runtimepod"
)

const (
	reasonCreating     = "ContainerCreating"
	reasonInitializing = "PodInitializing"
	reasonRestarting   = "RestartingAllContainers"

	messageLost = "The container could not be located when the pod was terminated"
)

// containerStatuses returns one status per container of the spec, in its order.
func containerStatuses(in Input, specs []v1.Container, previous []v1.ContainerStatus) []v1.ContainerStatus {
	var statuses []v1.ContainerStatus
	for i := range specs {
		c := &specs[i]
		var old *v1.ContainerStatus
		if j, ok := podutil.GetIndexOfContainerStatus(previous, c.Name); ok {
			old = &previous[j]
		}
		statuses = append(statuses, containerStatus(in, c, old))
	}
	return statuses
}

func containerStatus(in Input, c *v1.Container, old *v1.ContainerStatus) v1.ContainerStatus {
	s := v1.ContainerStatus{
		Name:         c.Name,
		Image:        c.Image,
		State:        v1.ContainerState{Waiting: &v1.ContainerStateWaiting{Reason: notYet(in.Pod)}},
		VolumeMounts: volumeMounts(in, c),
	}
	if old != nil {
		s.RestartCount = old.RestartCount
		s.LastTerminationState = *old.LastTerminationState.DeepCopy()
	}
	runs := in.Runtime.Runs(c.Name)
	if len(runs) > 0 {
		fillFromRun(in, c, &s, runs[0])
		if in.Resize.Active && old != nil && old.Resources != nil {
			s.Resources = old.Resources.DeepCopy()
		}
		s.LastTerminationState = lastTermination(in, runs, old)
	}
	if s.State.Terminated != nil && in.again(runs[0]) {
		s.LastTerminationState = s.State
		s.State = v1.ContainerState{Waiting: &v1.ContainerStateWaiting{Reason: reasonRestarting, Message: "All containers of the pod are restarted"}}
	}
	fillWaiting(in, c, &s, runs)
	fillProbes(in, c, &s, runs)
	return s
}

// ephemeralStatuses returns those of containers that somebody added to look into
// the pod (KEP-277). They have neither probes nor resources, and run once.
func ephemeralStatuses(in Input) []v1.ContainerStatus {
	specs := make([]v1.Container, 0, len(in.Pod.Spec.EphemeralContainers))
	waiting := map[string]Waiting{}
	for _, e := range in.Pod.Spec.EphemeralContainers {
		specs = append(specs, v1.Container(e.EphemeralContainerCommon))
		if w, ok := in.Waiting[e.Name]; ok && in.Runtime.Latest(e.Name) == nil {
			waiting[e.Name] = w
		}
	}
	in.Waiting = waiting // a run that couldn't be started was the only one
	statuses := containerStatuses(in, specs, in.Previous.EphemeralContainerStatuses)
	for i := range statuses {
		s := &statuses[i]
		s.Started, s.Ready, s.Resources, s.AllocatedResources = nil, false, nil, nil
	}
	return statuses
}

// notYet is why a container that nobody has tried to start doesn't run.
func notYet(pod *v1.Pod) string {
	if len(pod.Spec.InitContainers) > 0 {
		return reasonInitializing
	}
	return reasonCreating
}

func fillFromRun(in Input, c *v1.Container, s *v1.ContainerStatus, run *runtimepod.Container) {
	s.State = stateOf(in, run)
	s.RestartCount = max(s.RestartCount, run.RestartCount)
	s.ContainerID = runtimepod.ContainerID(in.RuntimeName, run.ID)
	s.ImageID = run.ImageRef
	if run.Image != "" {
		s.Image = run.Image
	}
	s.User = run.User.DeepCopy()
	s.Resources = c.Resources.DeepCopy()
	s.AllocatedResources = c.Resources.Requests.DeepCopy()
}

// lastTermination is how the run before the present one ended. What the API
// knew is kept if the runtime knows no more.
func lastTermination(in Input, runs []*runtimepod.Container, old *v1.ContainerStatus) v1.ContainerState {
	if len(runs) > 1 {
		return stateOf(in, runs[1])
	}
	if old == nil {
		return v1.ContainerState{}
	}
	if old.State.Terminated != nil && old.ContainerID != runtimepod.ContainerID(in.RuntimeName, runs[0].ID) {
		return *old.State.DeepCopy()
	}
	return *old.LastTerminationState.DeepCopy()
}

func stateOf(in Input, run *runtimepod.Container) v1.ContainerState {
	switch run.State {
	case runtimepod.Running:
		return v1.ContainerState{Running: &v1.ContainerStateRunning{StartedAt: metav1.NewTime(run.StartedAt)}}
	case runtimepod.Exited:
		return v1.ContainerState{Terminated: &v1.ContainerStateTerminated{
			ExitCode:    run.ExitCode,
			Reason:      run.Reason,
			Message:     run.Message,
			StartedAt:   startOf(run),
			FinishedAt:  metav1.NewTime(run.FinishedAt),
			ContainerID: runtimepod.ContainerID(in.RuntimeName, run.ID),
		}}
	default:
		return v1.ContainerState{Waiting: &v1.ContainerStateWaiting{}}
	}
}

// startOf is when the run started. One that ended without having started, as with
// a command that doesn't exist, shows the epoch, as the kubelet has it.
func startOf(run *runtimepod.Container) metav1.Time {
	if run.StartedAt.IsZero() && !run.Lost {
		return metav1.Unix(0, 0)
	}
	return metav1.NewTime(run.StartedAt)
}

// fillWaiting makes a container that is to run, and couldn't be started, wait
// with the reason. One that ended and will be started shortly is still shown
// as ended.
func fillWaiting(in Input, c *v1.Container, s *v1.ContainerStatus, runs []*runtimepod.Container) {
	w, ok := in.Waiting[c.Name]
	if !ok || in.Ending {
		return
	}
	if len(runs) > 0 {
		if again := in.again(runs[0]) || plan.ShouldRestart(in.Pod, c, runs[0]); runs[0].State == runtimepod.Running || !again {
			return
		}
		if s.State.Terminated != nil {
			s.LastTerminationState = s.State
		}
	}
	s.State = v1.ContainerState{Waiting: &v1.ContainerStateWaiting{Reason: w.Reason, Message: w.Message}}
}

// fillProbes sets started and ready. An init container is ready once it has
// succeeded, a sidecar as a regular container is.
func fillProbes(in Input, c *v1.Container, s *v1.ContainerStatus, runs []*runtimepod.Container) {
	running := s.State.Running != nil
	started := running && (c.StartupProbe == nil || in.Started == nil || in.Started(runs[0].ID))
	s.Started = ptr.To(started)
	if isPlainInit(in.Pod, c) {
		s.Ready = s.State.Terminated != nil && s.State.Terminated.ExitCode == 0
		return
	}
	s.Ready = started && (c.ReadinessProbe == nil || in.Ready == nil || in.Ready(runs[0].ID))
}

func isPlainInit(pod *v1.Pod, c *v1.Container) bool {
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == c.Name {
			return !podutil.IsRestartableInitContainer(c)
		}
	}
	return false
}

// volumeMounts tells which mounts are recursively read-only (KEP-3857).
func volumeMounts(in Input, c *v1.Container) []v1.VolumeMountStatus {
	var mounts []v1.VolumeMountStatus
	for _, m := range c.VolumeMounts {
		s := v1.VolumeMountStatus{Name: m.Name, MountPath: m.MountPath, ReadOnly: m.ReadOnly}
		if m.ReadOnly {
			s.RecursiveReadOnly = ptr.To(v1.RecursiveReadOnlyDisabled)
			if wanted := ptr.Deref(m.RecursiveReadOnly, v1.RecursiveReadOnlyDisabled); in.RecursiveReadOnly && wanted != v1.RecursiveReadOnlyDisabled {
				s.RecursiveReadOnly = ptr.To(v1.RecursiveReadOnlyEnabled)
			}
		}
		mounts = append(mounts, s)
	}
	return mounts
}

// endContainers gives every container of an ended pod a termination: what
// nobody saw succeed has failed. Where initialization failed, the containers
// that never got their turn stay waiting.
func endContainers(pod *v1.Pod, s *v1.PodStatus) {
	if initializedOnce(pod, s) {
		for i := range s.ContainerStatuses {
			endContainer(&s.ContainerStatuses[i])
		}
	}
	last := 0 // the first init container was at least to be started
	for i := range s.InitContainerStatuses {
		if c := &s.InitContainerStatuses[i]; c.State.Waiting == nil || c.LastTerminationState.Terminated != nil {
			last = i
		}
	}
	for i := 0; i <= last && i < len(s.InitContainerStatuses); i++ {
		endContainer(&s.InitContainerStatuses[i])
	}
}

func endContainer(s *v1.ContainerStatus) {
	if s.State.Terminated != nil {
		return
	}
	s.State = v1.ContainerState{Terminated: &v1.ContainerStateTerminated{
		ExitCode: runtimepod.ExitCodeLost,
		Reason:   runtimepod.ReasonStatusUnknown,
		Message:  messageLost,
	}}
	s.Started, s.Ready = ptr.To(false), false
}

// initializedOnce tells whether the regular containers ever got their turn.
func initializedOnce(pod *v1.Pod, s *v1.PodStatus) bool {
	n := len(s.InitContainerStatuses)
	if n == 0 {
		return true
	}
	for i := range s.ContainerStatuses {
		if c := &s.ContainerStatuses[i]; c.State.Waiting == nil || c.LastTerminationState.Terminated != nil {
			return true
		}
	}
	last := &s.InitContainerStatuses[n-1]
	if podutil.IsRestartableInitContainer(&pod.Spec.InitContainers[n-1]) {
		return last.State.Running != nil && ptr.Deref(last.Started, false)
	}
	return succeeded(last.State) || succeeded(last.LastTerminationState)
}

func succeeded(s v1.ContainerState) bool {
	return s.Terminated != nil && s.Terminated.ExitCode == 0
}
