package jobs

import (
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"errand.dev/errand/internal/podtrace"
	"errand.dev/errand/internal/podtrace/apipod"
)

// traceCreation records that the pod was created by a sync that began at began, which asked the API at asked.
func (e *engine) traceCreation(pod *corev1.Pod, began, asked time.Time) {
	if e.traces == nil {
		return
	}
	now := e.clock.Now()
	e.traces.Pod(apipod.Identity(pod)).Record(podtrace.Done{
		Name: "SyncJob", Start: began, End: now,
		Below: []podtrace.Done{{Name: "CreatePod", Start: asked, End: now}},
	})
}

// traceCount records that the pod's end was counted by a sync that began at began.
func (e *engine) traceCount(s *jobState, ref podRef, began time.Time) {
	if e.traces == nil {
		return
	}
	pod := e.traces.Pod(podtrace.Identity{
		Namespace: s.namespace, Name: ref.Name, UID: string(ref.UID), JobName: s.name, JobUID: string(s.uid),
	})
	pod.Record(podtrace.Done{Name: "CountPod", Start: began, End: e.clock.Now()})
	pod.Reached(podtrace.Counted)
}

// traceJob records the run of a Job that has ended with the status written. s.mu must be held.
func (e *engine) traceJob(s *jobState, job, written *batchv1.Job) {
	if e.traces == nil || isFinished(job) || !isFinished(written) {
		return
	}
	start := s.startedAt
	if start.IsZero() && written.Status.StartTime != nil {
		start = written.Status.StartTime.Time // to the second: another engine began it
	}
	failure := ""
	if c := findCondition(written.Status.Conditions, batchv1.JobFailed); c != nil && c.Status == corev1.ConditionTrue {
		failure = c.Reason
	}
	id := podtrace.Identity{Namespace: s.namespace, JobName: s.name, JobUID: string(s.uid)}
	e.traces.Job(id, start, e.clock.Now(), failure)
}
