package jobs

import (
	"strconv"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// This file is the backoff limit that each index has for itself (spec.backoffLimitPerIndex, KEP-3850). How often an index has failed isn't in the
// Job's status: each pod carries how often its index had failed before it. The last failed pod of an index therefore keeps its finalizer, and
// isn't counted, until the pod that takes over its number exists, or until the index is given up.

func limitsPerIndex(job *batchv1.Job) bool { return job.Spec.BackoffLimitPerIndex != nil }

// indexFailures is how often an index has failed: counted, and ignored by the Job's podFailurePolicy.
type indexFailures struct{ Counted, Ignored int32 }

// readIndexFailures returns how often the pod's index had failed before it.
func readIndexFailures(pod *corev1.Pod) indexFailures {
	var f indexFailures
	f.Counted, _ = parseCount(pod.Annotations[batchv1.JobIndexFailureCountAnnotation])
	f.Ignored, _ = parseCount(pod.Annotations[batchv1.JobIndexIgnoredFailureCountAnnotation])
	return f
}

// write tells the pod how often its index has failed before it.
func (f indexFailures) write(pod *corev1.Pod) {
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	pod.Annotations[batchv1.JobIndexFailureCountAnnotation] = strconv.Itoa(int(f.Counted))
	if f.Ignored > 0 {
		pod.Annotations[batchv1.JobIndexIgnoredFailureCountAnnotation] = strconv.Itoa(int(f.Ignored))
	}
}

// after returns the failures of an index after one more pod of it has failed.
func (f indexFailures) after(v verdict) indexFailures {
	if v.counts() {
		f.Counted++
	} else {
		f.Ignored++
	}
	return f
}

func (f indexFailures) total() int32 { return f.Counted + f.Ignored }

// failsIndex says whether an index is given up with the failure of a pod before which it had failed so often.
func failsIndex(job *batchv1.Job, before indexFailures, v verdict) bool {
	if !limitsPerIndex(job) {
		return false
	}
	return v.Action == batchv1.PodFailurePolicyActionFailIndex || v.counts() && before.Counted >= *job.Spec.BackoffLimitPerIndex
}

// indexHistory returns how often an index has failed, and how long it has to wait after the last failure, if each index fails for itself.
func (d *draft) indexHistory(index int32) (failures indexFailures, wait time.Duration) {
	if !limitsPerIndex(d.job) {
		return indexFailures{}, 0
	}
	live := d.v.Indexes.live[index]
	if live == nil || live.last == nil {
		return indexFailures{}, 0
	}
	failures = live.last.before.after(live.last.verdict)
	return failures, delayAfter(int(failures.total()), live.last.endedAt, d.now, d.lim)
}

// tooManyIndexesFailed returns FailureTarget if too many indexes have been given up, or if all others have succeeded.
func (d *draft) tooManyIndexesFailed() *batchv1.JobCondition {
	given := d.failedIndexes.total()
	switch {
	case given == 0:
		return nil
	case d.job.Spec.MaxFailedIndexes != nil && given > *d.job.Spec.MaxFailedIndexes:
		return d.verdict(batchv1.JobFailureTarget, batchv1.JobReasonMaxFailedIndexesExceeded,
			"Job has exceeded the specified maximal number of failed indexes")
	case given+d.doneIndexes.total() >= d.v.Indexes.completions:
		return d.verdict(batchv1.JobFailureTarget, batchv1.JobReasonFailedIndexes, "Job has failed indexes")
	default:
		return nil
	}
}
