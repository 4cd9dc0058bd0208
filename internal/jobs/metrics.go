package jobs

import (
	"errors"
	"fmt"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	kmetrics "k8s.io/component-base/metrics"
	"k8s.io/utils/ptr"
)

const metricsSubsystem = "job_controller"

// metrics are those of upstream's Job and TTL controllers, by name, labels and meaning. Methods may be called concurrently.
type metrics struct {
	syncDuration     *kmetrics.HistogramVec
	syncs            *kmetrics.CounterVec
	finished         *kmetrics.CounterVec
	external         *kmetrics.CounterVec
	podsFinished     *kmetrics.CounterVec
	indexesFinished  *kmetrics.CounterVec
	policyHandled    *kmetrics.CounterVec
	terminatedPods   *kmetrics.CounterVec
	podsCreated      *kmetrics.CounterVec
	deletionDuration *kmetrics.Histogram
}

func counter(name, help string, level kmetrics.StabilityLevel, labels ...string) *kmetrics.CounterVec {
	return kmetrics.NewCounterVec(&kmetrics.CounterOpts{
		Subsystem: metricsSubsystem, Name: name, Help: help, StabilityLevel: level,
	}, labels)
}

func newMetrics() *metrics {
	return &metrics{
		syncDuration: kmetrics.NewHistogramVec(&kmetrics.HistogramOpts{
			Subsystem: metricsSubsystem, Name: "job_sync_duration_seconds", StabilityLevel: kmetrics.STABLE,
			Help:    "The time it took to sync a job",
			Buckets: kmetrics.ExponentialBuckets(0.004, 2, 15),
		}, []string{"completion_mode", "result", "action"}),
		syncs: counter("job_syncs_total", "The number of job syncs", kmetrics.STABLE,
			"completion_mode", "result", "action"),
		finished: counter("jobs_finished_total", "The number of finished jobs", kmetrics.STABLE,
			"completion_mode", "result", "reason"),
		external: counter("jobs_by_external_controller_total", "The number of Jobs managed by an external controller", kmetrics.ALPHA,
			"controller_name"),
		podsFinished: counter("job_pods_finished_total", "The number of finished Pods that are fully tracked", kmetrics.STABLE,
			"completion_mode", "result"),
		indexesFinished: counter("job_finished_indexes_total", "The number of finished indexes.", kmetrics.ALPHA,
			"status", "backoffLimit"),
		policyHandled: counter("pod_failures_handled_by_failure_policy_total",
			"The number of failed Pods handled by failure policy, by the action of the rule that matched.", kmetrics.BETA,
			"action"),
		terminatedPods: counter("terminated_pods_tracking_finalizer_total",
			"The number of terminated pods (phase=Failed|Succeeded) that have the finalizer batch.kubernetes.io/job-tracking. "+
				`The event label can be "add" or "delete".`, kmetrics.BETA,
			"event"),
		podsCreated: counter("job_pods_creation_total",
			"The number of Pods created by the Job controller, by the reason for their creation and whether it succeeded.", kmetrics.ALPHA,
			"reason", "status"),
		deletionDuration: kmetrics.NewHistogram(&kmetrics.HistogramOpts{
			Subsystem: "ttl_after_finished_controller", Name: "job_deletion_duration_seconds", StabilityLevel: kmetrics.ALPHA,
			Help:    "The time it took to delete the job since it became eligible for deletion",
			Buckets: kmetrics.ExponentialBuckets(0.1, 2, 14),
		}),
	}
}

// register makes the metrics count, and shows them where register puts them.
func (m *metrics) register(register func(kmetrics.Registerable) error) error {
	for _, r := range []kmetrics.Registerable{
		m.syncDuration, m.syncs, m.finished, m.external, m.podsFinished, m.indexesFinished, m.policyHandled, m.terminatedPods, m.podsCreated, m.deletionDuration,
	} {
		if err := register(r); err != nil {
			return fmt.Errorf("registering a metric of the Job engine: %w", err)
		}
	}
	return nil
}

func completionMode(job *batchv1.Job) string {
	return string(ptr.Deref(job.Spec.CompletionMode, batchv1.NonIndexedCompletion))
}

func (m *metrics) synced(job *batchv1.Job, p *plan, err error, took time.Duration) {
	result, action := "success", "tracking"
	if err != nil {
		result = "error"
	}
	switch {
	case len(p.Delete) > 0:
		action = "pods_deleted"
	case len(p.Create) > 0:
		action = "pods_created"
	}
	m.syncDuration.WithLabelValues(completionMode(job), result, action).Observe(took.Seconds())
	m.syncs.WithLabelValues(completionMode(job), result, action).Inc()
}

// counted takes in a status written over that of job.
func (m *metrics) counted(job *batchv1.Job, status *batchv1.JobStatus) {
	mode := completionMode(job)
	m.podsFinished.WithLabelValues(mode, "succeeded").Add(float64(max(status.Succeeded-job.Status.Succeeded, 0)))
	m.podsFinished.WithLabelValues(mode, "failed").Add(float64(max(status.Failed-job.Status.Failed, 0)))
	m.countedIndexes(job, status)
	for kind, result := range map[batchv1.JobConditionType]string{batchv1.JobComplete: "succeeded", batchv1.JobFailed: "failed"} {
		if isTrue(status.Conditions, kind) && !isTrue(job.Status.Conditions, kind) {
			m.finished.WithLabelValues(mode, result, findCondition(status.Conditions, kind).Reason).Inc()
		}
	}
}

// countedIndexes takes in the indexes that a status written over that of job says have ended.
func (m *metrics) countedIndexes(job *batchv1.Job, status *batchv1.JobStatus) {
	if !isIndexed(job) {
		return
	}
	limit := "global"
	if limitsPerIndex(job) {
		limit = "perIndex"
		given := func(s *batchv1.JobStatus) int32 {
			return parseIntervals(ptr.Deref(s.FailedIndexes, ""), *job.Spec.Completions).total()
		}
		m.indexesFinished.WithLabelValues("failed", limit).Add(float64(max(given(status)-given(&job.Status), 0)))
	}
	m.indexesFinished.WithLabelValues("succeeded", limit).Add(float64(max(status.Succeeded-job.Status.Succeeded, 0)))
}

// handled takes in that a podFailurePolicy has decided about a failed pod.
func (m *metrics) handled(action batchv1.PodFailurePolicyAction) {
	m.policyHandled.WithLabelValues(string(action)).Inc()
}

func (m *metrics) created(job *batchv1.Job, created []bool, failures []error) {
	reason := "new"
	switch {
	case job.Status.Failed == 0 && ptr.Deref(job.Status.Terminating, 0) == 0:
	case !replacesFailedOnly(job):
		reason = "recreate_terminating_or_failed"
	case job.Status.Failed > 0:
		reason = "recreate_failed"
	}
	for i := range created {
		if created[i] {
			m.podsCreated.WithLabelValues(reason, "succeeded").Inc()
		} else if err := failures[i]; err != nil && !errors.Is(err, errUnfit) {
			m.podsCreated.WithLabelValues(reason, "failed").Inc()
		}
	}
}

// tracking takes in the change of a pod from one version (nil: new) to another (nil: gone).
func (m *metrics) tracking(old, pod *corev1.Pod) {
	was, is := endedAndTracked(old), endedAndTracked(pod)
	switch {
	case is && !was:
		m.terminatedPods.WithLabelValues("add").Inc()
	case was && !is:
		m.terminatedPods.WithLabelValues("delete").Inc()
	}
}

func endedAndTracked(pod *corev1.Pod) bool {
	return pod != nil && stageOf(pod.Status.Phase, false).ended() && isTracked(pod)
}

func (m *metrics) externallyManaged(manager string) { m.external.WithLabelValues(manager).Inc() }

func (m *metrics) reaped(late time.Duration) { m.deletionDuration.Observe(late.Seconds()) }
