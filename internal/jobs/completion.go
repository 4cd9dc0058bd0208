package jobs

import (
	batchv1 "k8s.io/api/batch/v1"
)

// completionsReached says whether enough pods have succeeded. A Job with a fixed count is done with that many; a work queue (spec.completions null)
// is done once a pod has succeeded and none is left to work.
func completionsReached(job *batchv1.Job, succeeded, active int32) bool {
	if job.Spec.Completions == nil {
		return succeeded > 0 && active == 0
	}
	return succeeded >= *job.Spec.Completions
}

// wantActive is how many pods should be active: never more than spec.parallelism, nor than work is left. In a work queue that has had a success
// those that run finish, and none is added.
// An index that has been given up is no work any more.
func wantActive(job *batchv1.Job, succeeded, givenUp, active int32) int32 {
	parallelism := int32(1)
	if job.Spec.Parallelism != nil {
		parallelism = *job.Spec.Parallelism
	}
	if job.Spec.Completions == nil {
		if succeeded > 0 {
			return active
		}
		return parallelism
	}
	return max(min(*job.Spec.Completions-succeeded-givenUp, parallelism), 0)
}
