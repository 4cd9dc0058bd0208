package jobs

import (
	"time"

	batchv1 "k8s.io/api/batch/v1"

	"errand.dev/errand/internal/jobannotations"
)

// ttlLeft returns how long a finished Job has yet to be kept (spec.ttlSecondsAfterFinished, KEP-592, or what its annotations say), and when it expires by the wall clock;
// limited is false if it is kept for ever, or isn't finished.
//
// watched is how long this process has watched the Job being finished, by a clock that can't be set; negative if it was finished before. The Job is
// kept for its TTL by both clocks, so that a clock set forward deletes nothing early, and one set back delays.
func ttlLeft(job *batchv1.Job, now time.Time, watched time.Duration) (left time.Duration, expires time.Time, limited bool) {
	end := finalCondition(job)
	if end == nil || job.DeletionTimestamp != nil {
		return 0, time.Time{}, false
	}
	ttl, limited := ttlAfter(job, end.Type)
	if !limited {
		return 0, time.Time{}, false
	}
	expires = end.LastTransitionTime.Add(ttl)
	left = expires.Sub(now)
	if watched >= 0 {
		left = max(left, ttl-watched)
	}
	return left, expires, true
}

// ttlAfter is how long the Job is kept after such an end; limited is false if for ever.
func ttlAfter(job *batchv1.Job, end batchv1.JobConditionType) (ttl time.Duration, limited bool) {
	annotation := jobannotations.TTLAfterSuccess
	if end == batchv1.JobFailed {
		annotation = jobannotations.TTLAfterFailure
	}
	if ttl, limited, ok := jobannotations.TTL(job.Annotations, annotation); ok {
		return ttl, limited
	}
	if seconds := job.Spec.TTLSecondsAfterFinished; seconds != nil {
		return time.Duration(*seconds) * time.Second, true
	}
	return 0, false
}
