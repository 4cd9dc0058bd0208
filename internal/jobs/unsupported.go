package jobs

import (
	"fmt"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// JobUnsupported is the condition of a Job that asks for a policy that this engine doesn't have: no pod is created for it.
const JobUnsupported batchv1.JobConditionType = "errand.dev/Unsupported"

// unsupported says what the Job asks for that the engine doesn't do; "" if it does everything.
func unsupported(job *batchv1.Job) string {
	var fields []string
	if mode := ptr.Deref(job.Spec.CompletionMode, batchv1.NonIndexedCompletion); mode != batchv1.NonIndexedCompletion {
		fields = append(fields, fmt.Sprintf("spec.completionMode %s", mode))
	}
	if job.Spec.PodFailurePolicy != nil {
		fields = append(fields, "spec.podFailurePolicy")
	}
	if job.Spec.BackoffLimitPerIndex != nil {
		fields = append(fields, "spec.backoffLimitPerIndex")
	}
	if job.Spec.MaxFailedIndexes != nil {
		fields = append(fields, "spec.maxFailedIndexes")
	}
	if job.Spec.SuccessPolicy != nil {
		fields = append(fields, "spec.successPolicy")
	}
	return strings.Join(fields, ", ")
}

// refuse is the plan for a Job that asks for too much: it says so, and nothing else happens.
func refuse(job *batchv1.Job, why string, now time.Time) plan {
	c := newCondition(JobUnsupported, "Unsupported", "This version of errand doesn't support "+why+"; no pod is created", now.Truncate(time.Second))
	status := job.Status.DeepCopy()
	if !setCondition(&status.Conditions, c) {
		return plan{}
	}
	return plan{Status: status, Events: []event{{corev1.EventTypeWarning, c.Reason, c.Message}}}
}

// accept takes back an earlier refusal, by a version of the engine that could do less.
func (d *draft) accept(now time.Time) {
	c := newCondition(JobUnsupported, "Supported", "This version of errand supports all that the Job asks for", now)
	c.Status = corev1.ConditionFalse
	setCondition(&d.status.Conditions, c)
}
