package podserver

import (
	"strings"

	v1 "k8s.io/api/core/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
)

// containerID is an ID as a status has it: runtime://id.
type containerID struct{ runtime, id string }

func (c containerID) String() string { return c.runtime + "://" + c.id }

func parseContainerID(text string) containerID {
	runtime, id, _ := strings.Cut(strings.Trim(text, `"`), "://")
	return containerID{runtime, id}
}

// containerForLogs says which run of a container's log is meant: the present or
// last one, or the one before. The errors are the kubelet's, for kubectl to show.
func containerForLogs(pod *v1.Pod, name string, previous bool) (containerID, error) {
	status, ok := containerStatus(pod, name)
	if !ok {
		return containerID{}, errBadRequest("container %q in pod %q is not available", name, pod.Name)
	}
	state, last := status.State, status.LastTerminationState.Terminated
	lastID := ""
	if last != nil {
		lastID = last.ContainerID
	}
	switch {
	case previous && lastID == "":
		return containerID{}, errBadRequest("previous terminated container %q in pod %q not found", name, pod.Name)
	case previous:
		return parseContainerID(lastID), nil
	case state.Running != nil:
		return parseContainerID(status.ContainerID), nil
	case state.Terminated != nil && state.Terminated.ContainerID != "":
		return parseContainerID(state.Terminated.ContainerID), nil
	case lastID != "": // the next run has not begun
		return parseContainerID(lastID), nil
	case state.Terminated != nil, last != nil:
		return containerID{}, errBadRequest("container %q in pod %q is terminated", name, pod.Name)
	case state.Waiting != nil:
		return containerID{}, errBadRequest("container %q in pod %q is waiting to start: %s", name, pod.Name, waitingFor(state.Waiting.Reason))
	}
	return containerID{}, errBadRequest("container %q in pod %q is waiting to start - no logs yet", name, pod.Name)
}

func waitingFor(reason string) string {
	switch reason {
	case "ErrImagePull":
		return "image can't be pulled"
	case "ImagePullBackOff":
		return "trying and failing to pull image"
	}
	return reason
}

func containerStatus(pod *v1.Pod, name string) (v1.ContainerStatus, bool) {
	for _, statuses := range [][]v1.ContainerStatus{
		pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses, pod.Status.EphemeralContainerStatuses,
	} {
		if status, ok := podutil.GetContainerStatus(statuses, name); ok {
			return status, true
		}
	}
	return v1.ContainerStatus{}, false
}
