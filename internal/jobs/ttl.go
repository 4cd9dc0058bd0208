package jobs

import (
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// ttlLeft returns how long a finished Job has yet to be kept (spec.ttlSecondsAfterFinished, KEP-592), and when it expires by the wall clock;
// limited is false if it is kept for ever, or isn't finished.
//
// watched is how long this process has watched the Job being finished, by a clock that can't be set; negative if it was finished before. The Job is
// kept for its TTL by both clocks, so that a clock set forward deletes nothing early, and one set back delays.
func ttlLeft(job *batchv1.Job, now time.Time, watched time.Duration) (left time.Duration, expires time.Time, limited bool) {
	if job.Spec.TTLSecondsAfterFinished == nil || job.DeletionTimestamp != nil {
		return 0, time.Time{}, false
	}
	ended, ok := finishTime(job)
	if !ok {
		return 0, time.Time{}, false
	}
	ttl := time.Duration(*job.Spec.TTLSecondsAfterFinished) * time.Second
	expires = ended.Add(ttl)
	left = expires.Sub(now)
	if watched >= 0 {
		left = max(left, ttl-watched)
	}
	return left, expires, true
}

// finishTime is when the Job became Complete or Failed.
func finishTime(job *batchv1.Job) (time.Time, bool) {
	for i := range job.Status.Conditions {
		c := &job.Status.Conditions[i]
		if (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == corev1.ConditionTrue {
			return c.LastTransitionTime.Time, true
		}
	}
	return time.Time{}, false
}
