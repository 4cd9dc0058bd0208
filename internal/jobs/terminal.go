package jobs

import (
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// judge says whether the Job's end is decided, and how: what an earlier plan decided stands; then failures, in the order of upstream's
// controller; then success.
func (d *draft) judge() {
	if c := decidedEnd(d.status.Conditions); c != nil {
		d.ending, d.stands = c, true
		return
	}
	var verdict *batchv1.JobCondition
	if !d.deleting() {
		verdict = d.failure()
	}
	if verdict == nil {
		verdict = d.success()
	}
	if verdict == nil {
		return
	}
	d.status.Conditions = append(d.status.Conditions, *verdict)
	d.ending = verdict
}

// decidedEnd returns the interim condition that says how the Job is going to end, or nil.
func decidedEnd(conditions []batchv1.JobCondition) *batchv1.JobCondition {
	for _, kind := range []batchv1.JobConditionType{batchv1.JobSuccessCriteriaMet, batchv1.JobFailureTarget} {
		if c := findCondition(conditions, kind); c != nil && c.Status == corev1.ConditionTrue {
			return c
		}
	}
	return nil
}

// failure returns FailureTarget if the Job has to fail: for upstream's reasons, then for errand's own.
func (d *draft) failure() *batchv1.JobCondition {
	for _, check := range []func() *batchv1.JobCondition{d.failedByPolicy, d.failedTooOften, d.ranTooLong, d.tooManyIndexesFailed, d.imageMissing} {
		if c := check(); c != nil {
			return c
		}
	}
	return nil
}

// failedByPolicy: a pod has failed in a way that its Job's podFailurePolicy takes for the Job's failure.
func (d *draft) failedByPolicy() *batchv1.JobCondition {
	for _, e := range d.v.Waiting {
		if e.Verdict.Action == batchv1.PodFailurePolicyActionFailJob && e.Outcome == failed {
			return d.verdict(batchv1.JobFailureTarget, batchv1.JobReasonPodFailurePolicy, e.Verdict.Message)
		}
	}
	return nil
}

func (d *draft) failedTooOften() *batchv1.JobCondition {
	if backoffLimitExceeded(d.job, d.failed, d.v.Restarts) {
		return d.verdict(batchv1.JobFailureTarget, batchv1.JobReasonBackoffLimitExceeded, "Job has reached the specified backoff limit")
	}
	return nil
}

func (d *draft) ranTooLong() *batchv1.JobCondition {
	if d.suspended() {
		return nil
	}
	if left, limited := deadlineLeft(d.job, d.startedAt(), d.now); limited {
		if left <= 0 {
			return d.verdict(batchv1.JobFailureTarget, batchv1.JobReasonDeadlineExceeded, "Job was active longer than specified deadline")
		}
		d.plan.lookAgain(left)
	}
	return nil
}

// success returns SuccessCriteriaMet if the Job has done its work.
func (d *draft) success() *batchv1.JobCondition {
	if d.v.Indexes != nil {
		if message, met := matchSuccess(d.job.Spec.SuccessPolicy, d.v.Indexes.completions, d.doneIndexes); met {
			return d.verdict(batchv1.JobSuccessCriteriaMet, batchv1.JobReasonSuccessPolicy, message)
		}
	}
	if completionsReached(d.job, d.succeeded, d.v.Active) {
		return d.verdict(batchv1.JobSuccessCriteriaMet, batchv1.JobReasonCompletionsReached, "Reached expected number of succeeded pods")
	}
	return nil
}

func (d *draft) verdict(kind batchv1.JobConditionType, reason, message string) *batchv1.JobCondition {
	c := newCondition(kind, reason, message, d.now.Truncate(time.Second))
	return &c
}

// terminate ends the pods of a Job whose end is decided. Those of a failed Job count as failures; those that a success has made needless
// don't count at all.
func (d *draft) terminate() {
	d.remove(d.v.Active, d.ending.Type == batchv1.JobSuccessCriteriaMet)
}

// conclude makes a decided end final, once every pod has ended and has been counted: the terminal protocol.
func (d *draft) conclude() {
	u := d.status.UncountedTerminatedPods
	if d.ending == nil || d.status.Active+*d.status.Terminating+d.v.Tracked > 0 || len(u.Succeeded)+len(u.Failed)+len(d.v.Unresolved) > 0 {
		return
	}
	now := d.now.Truncate(time.Second)
	if d.status.StartTime == nil && !(d.suspended() && ptr.Deref(d.job.Spec.Completions, 1) == 0) {
		d.status.StartTime = ptr.To(metav1.NewTime(now)) // the API refuses a finished Job that never started
	}
	if start := d.status.StartTime; start != nil && start.After(now) {
		now = start.Time // the clock was set back; the API refuses an end before the start
	}
	reason, message := d.ending.Reason, d.ending.Message
	if d.ending.Type == batchv1.JobFailureTarget {
		d.status.Conditions = append(d.status.Conditions, newCondition(batchv1.JobFailed, reason, message, now))
		d.event(corev1.EventTypeWarning, reason, message)
		return
	}
	d.status.Conditions = append(d.status.Conditions, newCondition(batchv1.JobComplete, reason, message, now))
	d.status.CompletionTime = ptr.To(metav1.NewTime(now))
	if d.job.Spec.Completions != nil && d.status.Succeeded > *d.job.Spec.Completions {
		d.event(corev1.EventTypeWarning, "TooManySucceededPods", "Too many succeeded pods running after completion count reached")
	}
	d.event(corev1.EventTypeNormal, "Completed", "Job completed")
}
