package jobrun

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// failures finds the container that failed last among all that pods' statuses ever
// told, so that a pod may be gone when its Job ends.
type failures struct {
	at   time.Time
	code int
}

// see takes a pod's status. A pod that is being deleted was ended by somebody:
// what its containers made of that is nobody's exit code.
func (f *failures) see(pod *corev1.Pod) {
	if pod.DeletionTimestamp != nil {
		return
	}
	for _, s := range containerStatuses(pod) {
		for _, t := range []*corev1.ContainerStateTerminated{s.LastTerminationState.Terminated, s.State.Terminated} {
			if t == nil || t.ExitCode == 0 || t.FinishedAt.Time.Before(f.at) {
				continue
			}
			f.at, f.code = t.FinishedAt.Time, exitCode(t.ExitCode)
		}
	}
}

// exitCode makes of a container's exit code one that a process can have; none of a
// failure's becomes 0.
func exitCode(code int32) int {
	if code > 0 && code < 256 {
		return int(code)
	}
	return 1
}

// podFailure says why a pod has failed; "" when it hasn't, or was merely deleted.
func podFailure(pod *corev1.Pod) string {
	if pod.Status.Phase != corev1.PodFailed || pod.DeletionTimestamp != nil && pod.Status.Reason == "" {
		return ""
	}
	var why []string
	if pod.Status.Reason != "" || pod.Status.Message != "" {
		why = append(why, strings.TrimPrefix(because(pod.Status.Reason, pod.Status.Message), ": "))
	}
	for _, s := range containerStatuses(pod) {
		if t := s.State.Terminated; t != nil && t.ExitCode != 0 {
			why = append(why, fmt.Sprintf("container %s %s", s.Name, howEnded(t)))
		}
	}
	return fmt.Sprintf("pod %s failed: %s", pod.Name, strings.Join(why, "; "))
}

func howEnded(t *corev1.ContainerStateTerminated) string {
	s := fmt.Sprintf("ended with exit code %d", t.ExitCode)
	if t.Reason != "" && t.Reason != "Error" {
		s += " (" + t.Reason + ")"
	}
	// A message that the program wrote can be long, and stands in its log.
	if m, _, _ := strings.Cut(strings.TrimSpace(t.Message), "\n"); m != "" {
		s += ": " + m
	}
	return s
}

// containerStatuses are those of a pod's init containers and containers.
func containerStatuses(pod *corev1.Pod) []corev1.ContainerStatus {
	all := make([]corev1.ContainerStatus, 0, len(pod.Status.InitContainerStatuses)+len(pod.Status.ContainerStatuses))
	return append(append(all, pod.Status.InitContainerStatuses...), pod.Status.ContainerStatuses...)
}
