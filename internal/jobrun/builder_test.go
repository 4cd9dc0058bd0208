package jobrun

import (
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// start is when everything begins in tests: as synctest's clock has it.
var start = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func at(seconds int) metav1.Time {
	return metav1.NewTime(start.Add(time.Duration(seconds) * time.Second))
}

// makeJob makes a Job as the API server stores it.
func makeJob(name string, edit ...func(*batchv1.Job)) *batchv1.Job {
	uid := types.UID("uid-" + name)
	labels := map[string]string{
		batchv1.ControllerUidLabel: string(uid), batchv1.JobNameLabel: name, "controller-uid": string(uid), "job-name": name,
	}
	job := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: uid, ResourceVersion: "1"},
		Spec: batchv1.JobSpec{
			Parallelism: ptr.To[int32](1), Completions: ptr.To[int32](1), BackoffLimit: ptr.To[int32](6),
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{batchv1.ControllerUidLabel: string(uid)}},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "main", Image: "busybox"}}},
			},
		},
	}
	for _, e := range edit {
		e(job)
	}
	return job
}

// with gives a Job a condition.
func with(condition batchv1.JobConditionType, reason, message string) func(*batchv1.Job) {
	return func(job *batchv1.Job) {
		job.Status.Conditions = append(job.Status.Conditions, batchv1.JobCondition{
			Type: condition, Status: corev1.ConditionTrue, Reason: reason, Message: message,
		})
	}
}

// deletedAt5 has a Job deleted, which these finalizers hold.
func deletedAt5(finalizers ...string) func(*batchv1.Job) {
	return func(job *batchv1.Job) { job.DeletionTimestamp, job.Finalizers = ptr.To(at(5)), finalizers }
}

// makePod makes a pod of a Job's.
func makePod(job *batchv1.Job, name string, edit ...func(*corev1.Pod)) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: job.Namespace, UID: types.UID("uid-" + name), Labels: job.Spec.Template.Labels,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(job, batchv1.SchemeGroupVersion.WithKind("Job"))},
		},
		Spec:   *job.Spec.Template.Spec.DeepCopy(),
		Status: corev1.PodStatus{Phase: corev1.PodPending},
	}
	for _, e := range edit {
		e(pod)
	}
	return pod
}

func phase(p corev1.PodPhase) func(*corev1.Pod) {
	return func(pod *corev1.Pod) { pod.Status.Phase = p }
}

func onNode(pod *corev1.Pod) { pod.Spec.NodeName = "node" }

func deleted(pod *corev1.Pod) { pod.DeletionTimestamp = ptr.To(at(5)) }

// container gives a pod a container's status.
func container(s corev1.ContainerStatus) func(*corev1.Pod) {
	return func(pod *corev1.Pod) { pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, s) }
}

func waiting(reason, message string) corev1.ContainerStatus {
	return corev1.ContainerStatus{Name: "main", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}}
}

func running() corev1.ContainerStatus {
	return corev1.ContainerStatus{Name: "main", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: at(0)}}}
}

// terminated is a container that ended so many seconds after the start.
func terminated(code int32, seconds int) corev1.ContainerStatus {
	return corev1.ContainerStatus{Name: "main", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
		ExitCode: code, Reason: "Error", StartedAt: at(0), FinishedAt: at(seconds),
	}}}
}

// restarted is a container after so many restarts, of which the last run ended so.
func restarted(s corev1.ContainerStatus, restarts, code int32, seconds int) corev1.ContainerStatus {
	s.RestartCount = restarts
	s.LastTerminationState = terminated(code, seconds).State
	return s
}

func event(kind, reason, message string, seconds int) *corev1.Event {
	return &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Name: reason, Namespace: "default", UID: types.UID(reason)},
		Type:       kind, Reason: reason, Message: message, LastTimestamp: at(seconds),
	}
}

// written is an event at a version of the store.
func written(version string, e *corev1.Event) *corev1.Event {
	e = e.DeepCopy()
	e.ResourceVersion = version
	return e
}
