package jobs

import (
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// backoffLimitExceeded says whether the Job has failed too often (spec.backoffLimit). With restartPolicy OnFailure the restarts of containers in
// pods that haven't ended count as well.
func backoffLimitExceeded(job *batchv1.Job, failed, restarts int32) bool {
	limit := ptr.Deref(job.Spec.BackoffLimit, defaultBackoffLimit)
	if failed > limit {
		return true
	}
	if job.Spec.Template.Spec.RestartPolicy != corev1.RestartPolicyOnFailure {
		return false
	}
	return restarts >= max(limit, 1)
}

// defaultBackoffLimit is what the API server sets where the user doesn't.
const defaultBackoffLimit = 6
