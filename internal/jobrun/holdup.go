package jobrun

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/utils/ptr"
)

// podHoldUp says what keeps a pod from running, given the events about it; "" when it
// runs, has ended, or is about to be gone.
func podHoldUp(pod *corev1.Pod, events []*corev1.Event) string {
	if ended(pod) || pod.DeletionTimestamp != nil {
		return ""
	}
	for _, s := range containerStatuses(pod) {
		if why := containerHoldUp(pod, &s); why != "" {
			return why
		}
	}
	if pod.Status.Phase != corev1.PodPending || startsUp(pod) {
		return ""
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return "waits for a node" + because("", c.Message)
		}
	}
	newest := newestEvent(events)
	switch {
	case pod.Spec.NodeName == "" && cmp.Or(pod.Spec.SchedulerName, corev1.DefaultSchedulerName) != corev1.DefaultSchedulerName:
		return fmt.Sprintf("waits for a node from the scheduler %q, which its spec.schedulerName names", pod.Spec.SchedulerName)
	case pod.Spec.NodeName == "":
		return "waits for a node"
	case newest == nil || newest.Reason == "Scheduled":
		return "waits for its node " + pod.Spec.NodeName + " to start it"
	case newest.Type == corev1.EventTypeWarning:
		return strings.TrimPrefix(because(newest.Reason, newest.Message), ": ")
	case newest.Reason == "Pulling":
		return "waits for its image: " + newest.Message
	default:
		return "is being started: " + newest.Message
	}
}

// containerHoldUp says what keeps one container from running, if it is more than that
// it hasn't started yet.
func containerHoldUp(pod *corev1.Pod, s *corev1.ContainerStatus) string {
	w := s.State.Waiting
	if w == nil {
		return ""
	}
	switch w.Reason {
	case "", "ContainerCreating", "PodInitializing":
		return ""
	case "ErrImagePull", "ImagePullBackOff":
		// The two take turns, and have the same cause.
		message := w.Message
		if _, cause, found := strings.Cut(message, ": ErrImagePull: "); found {
			message = cause
		}
		return fmt.Sprintf("can't get the image %s, which is tried again%s", image(pod, s), because("", message))
	case "ErrImageNeverPull":
		return fmt.Sprintf("can't get the image %s%s", image(pod, s), because(w.Reason, w.Message))
	case "InvalidImageName":
		// The Job isn't given up: other pods of it may be at work, and someone may correct this one's image.
		return fmt.Sprintf("can't get the image %q, and never will by that name: correct it in the Job's manifest, and run that anew%s", image(pod, s), because(w.Reason, w.Message))
	case "CrashLoopBackOff":
		how := "ended"
		if t := s.LastTerminationState.Terminated; t != nil {
			how = howEnded(t)
		}
		return fmt.Sprintf("waits to start container %s again, which %s", s.Name, how)
	default:
		return fmt.Sprintf("container %s doesn't start%s", s.Name, because(w.Reason, w.Message))
	}
}

// image is the image that a container was asked to run.
func image(pod *corev1.Pod, s *corev1.ContainerStatus) string {
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if list[i].Name == s.Name {
				return list[i].Image
			}
		}
	}
	return s.Image
}

// startsUp says whether a pod's init containers are at work, sidecars aside.
func startsUp(pod *corev1.Pod) bool {
	sidecar := map[string]bool{}
	for _, c := range pod.Spec.InitContainers {
		sidecar[c.Name] = ptr.Deref(c.RestartPolicy, "") == corev1.ContainerRestartPolicyAlways
	}
	for _, s := range containerStatuses(pod) {
		if s.State.Running != nil && !sidecar[s.Name] {
			return true
		}
	}
	return false
}

// jobHoldUp says what a Job that has not ended waits for, given whether it has
// made pods, how many of them are left, and the events about it; "" while pods are at work,
// or hold it up themselves.
func jobHoldUp(job *batchv1.Job, made bool, left int, events []*corev1.Event) string {
	target := targetOf(job)
	switch {
	case job.DeletionTimestamp != nil:
		return deletion(job, left)
	case target != nil:
		return fmt.Sprintf("is about to end (%s): %s", target.Reason, cmp.Or(podsLeft(left, job), "it waits for its controllers"))
	case left > 0 || standing(job) != "":
		return ""
	case ptr.Deref(job.Spec.Parallelism, 1) == 0:
		return "runs no pods: its parallelism is 0"
	}
	newest := newestEvent(events)
	switch {
	case newest != nil && newest.Type == corev1.EventTypeWarning:
		return strings.TrimPrefix(because(newest.Reason, newest.Message), ": ")
	case job.Status.Failed > 0:
		return fmt.Sprintf("waits before it tries again: %d failed, and its backoffLimit is %d", job.Status.Failed, ptr.Deref(job.Spec.BackoffLimit, 6))
	case !made:
		return "has no pods yet: no Job controller has made any"
	default:
		return "waits for its Job controller: its pods have ended"
	}
}

// deletion says since when a Job is being deleted, and what keeps it from being gone,
// as far as so many pods of it are known to be left.
func deletion(job *batchv1.Job, left int) string {
	since := "is being deleted since " + job.DeletionTimestamp.Local().Format(time.DateTime)
	if pods := podsLeft(left, job); pods != "" {
		return since + ": " + pods
	}
	finalizers := slices.Clone(job.Finalizers)
	for i, f := range finalizers {
		if f == metav1.FinalizerDeleteDependents {
			finalizers[i] += " (what belongs to it goes first)"
		}
	}
	if len(finalizers) == 0 {
		return since
	}
	return since + ": it waits until the controllers of its finalizers have removed them: " + strings.Join(finalizers, ", ")
}

// podsLeft says what is waited for where a Job waits for the end of pods; "" where it
// waits for none.
func podsLeft(n int, job *batchv1.Job) string {
	grace := ptr.Deref(job.Spec.Template.Spec.TerminationGracePeriodSeconds, corev1.DefaultTerminationGracePeriodSeconds)
	switch n {
	case 0:
		return ""
	case 1:
		return fmt.Sprintf("it waits for a pod to end, which has %d s for it", grace)
	default:
		return fmt.Sprintf("it waits for %d pods to end, which have %d s for it", n, grace)
	}
}

// targetOf is the condition that says how a Job will end, once its pods have.
func targetOf(job *batchv1.Job) *batchv1.JobCondition {
	for i := range job.Status.Conditions {
		c := &job.Status.Conditions[i]
		if c.Status == corev1.ConditionTrue && (c.Type == batchv1.JobFailureTarget || c.Type == batchv1.JobSuccessCriteriaMet) {
			return c
		}
	}
	return nil
}

func ended(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// newestEvent is the event that happened last, whichever of the fields for it its
// reporter fills; nil if there is none.
func newestEvent(events []*corev1.Event) *corev1.Event {
	var newest *corev1.Event
	for _, e := range events {
		if newest == nil || later(e, newest) {
			newest = e
		}
	}
	return newest
}

// later says whether an event happened after another one. Most reporters tell seconds, in which
// much can happen: within one, what was written last is the later.
func later(e, than *corev1.Event) bool {
	if order := eventTime(e).Compare(eventTime(than)); order != 0 {
		return order > 0
	}
	order, err := resourceversion.CompareResourceVersion(e.ResourceVersion, than.ResourceVersion)
	return err != nil || order > 0
}

// eventTime is when an event happened last.
func eventTime(e *corev1.Event) time.Time {
	times := []time.Time{e.EventTime.Time, e.LastTimestamp.Time, e.CreationTimestamp.Time}
	if e.Series != nil {
		times = append(times, e.Series.LastObservedTime.Time)
	}
	return slices.MaxFunc(times, time.Time.Compare)
}
