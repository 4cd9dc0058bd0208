package jobs

import (
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func findCondition(conditions []batchv1.JobCondition, kind batchv1.JobConditionType) *batchv1.JobCondition {
	for i := range conditions {
		if conditions[i].Type == kind {
			return &conditions[i]
		}
	}
	return nil
}

func isTrue(conditions []batchv1.JobCondition, kind batchv1.JobConditionType) bool {
	c := findCondition(conditions, kind)
	return c != nil && c.Status == corev1.ConditionTrue
}

// isFinished says whether the Job is Complete or Failed, which is for good.
func isFinished(job *batchv1.Job) bool { return finalCondition(job) != nil }

// finalCondition is that by which the Job is Complete or Failed; nil before.
func finalCondition(job *batchv1.Job) *batchv1.JobCondition {
	for _, kind := range []batchv1.JobConditionType{batchv1.JobComplete, batchv1.JobFailed} {
		if c := findCondition(job.Status.Conditions, kind); c != nil && c.Status == corev1.ConditionTrue {
			return c
		}
	}
	return nil
}

func newCondition(kind batchv1.JobConditionType, reason, message string, now time.Time) batchv1.JobCondition {
	return batchv1.JobCondition{
		Type:               kind,
		Status:             corev1.ConditionTrue,
		LastProbeTime:      metav1.NewTime(now),
		LastTransitionTime: metav1.NewTime(now),
		Reason:             reason,
		Message:            message,
	}
}

// setCondition makes the condition of c's type equal to c and says whether it wasn't. That a condition is false is only worth saying if it was
// ever true.
func setCondition(conditions *[]batchv1.JobCondition, c batchv1.JobCondition) bool {
	if old := findCondition(*conditions, c.Type); old != nil {
		if old.Status == c.Status && old.Reason == c.Reason && old.Message == c.Message {
			return false
		}
		*old = c
		return true
	}
	if c.Status == corev1.ConditionFalse {
		return false
	}
	*conditions = append(*conditions, c)
	return true
}
