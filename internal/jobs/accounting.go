package jobs

import (
	"slices"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// settle does the accounting (KEP-2307). Pods that status names as uncounted and that have lost the finalizer are counted; the others are still to
// be released. Then pods that have ended since are named, as many as there is room for.
func (d *draft) settle() {
	u := d.status.UncountedTerminatedPods
	v := d.v
	var held int64
	count := func(uids []types.UID, counter *int32) []types.UID {
		var kept []types.UID
		for _, uid := range uids {
			if p := v.held(uid); p != nil {
				kept = append(kept, uid)
				d.release(release{podRef: p.podRef, Handled: p.verdict.Action})
				held++
				continue
			}
			*counter++
		}
		return kept
	}
	d.slot = d.firstSlot()
	u.Succeeded = count(u.Succeeded, &d.status.Succeeded)
	u.Failed = count(u.Failed, &d.status.Failed)

	d.countWaiting(maxUncounted - len(u.Succeeded) - len(u.Failed))
	// held pods are in status and in v.Tracked, waiting ones only in the sums.
	d.slot = max(d.slot+int64(v.Tracked)-held, v.NextSlot)
	d.succeeded = d.job.Status.Succeeded + d.named(succeeded) + v.Succeeded
	d.failed = d.job.Status.Failed + d.named(failed) + v.Failed
	if v.Indexes != nil {
		d.succeeded = d.doneIndexes.total()
		d.writeIndexes()
	}
	d.plan.lookAgain(v.Waits[deedRelease])
}

// countWaiting counts pods that have ended. The success of an Indexed Job's pod is counted by its index; other ends by the pod's UID, for which there
// is room so many times. Once the Job's end is decided no more indexes are given up: their pods end because of it.
func (d *draft) countWaiting(room int) {
	u := d.status.UncountedTerminatedPods
	decided := decidedEnd(d.job.Status.Conditions) != nil
	var done, given []int32
	for _, e := range d.v.Waiting {
		switch {
		case e.Outcome == spent:
		case e.Outcome == succeeded && d.v.Indexes != nil:
			done = append(done, e.Index)
		case room <= 0:
			continue
		case e.Outcome == succeeded:
			u.Succeeded = append(u.Succeeded, e.UID)
			room--
		default:
			u.Failed = append(u.Failed, e.UID)
			room--
		}
		if e.FailsIndex && !decided {
			given = append(given, e.Index)
		}
		d.releaseJudged(e)
	}
	if x := d.v.Indexes; x != nil {
		d.doneIndexes = x.done.with(slices.DeleteFunc(done, x.failed.has))
		d.failedIndexes = x.failed.with(slices.DeleteFunc(given, d.doneIndexes.has))
	}
}

// writeIndexes puts the indexes into the status.
func (d *draft) writeIndexes() {
	d.status.Succeeded = d.succeeded
	if before := d.job.Status.Succeeded; d.succeeded < before && !ptr.Equal(d.job.Spec.Completions, d.job.Spec.Parallelism) {
		// The Job was made smaller (KEP-3715), and its parallelism changed after that: the API server lets no counter fall then.
		d.status.Succeeded = before
	}
	d.status.CompletedIndexes = d.doneIndexes.String()
	if limitsPerIndex(d.job) {
		d.status.FailedIndexes = ptr.To(d.failedIndexes.String())
	}
}

// firstSlot is the number of pods that the Job's status tells of. Together with those that are alive and not in it, it is the number of pods that
// the Job has had.
func (d *draft) firstSlot() int64 {
	s := &d.job.Status
	return int64(s.Succeeded) + int64(s.Failed) + int64(d.named(succeeded)) + int64(d.named(failed))
}

// named is how many pods the Job's status names as uncounted.
func (d *draft) named(o outcome) int32 {
	u := d.job.Status.UncountedTerminatedPods
	switch {
	case u == nil:
		return 0
	case o == succeeded:
		return int32(len(u.Succeeded))
	default:
		return int32(len(u.Failed))
	}
}

// isNamed says whether the Job's status names the pod as uncounted.
func (d *draft) isNamed(uid types.UID) bool {
	u := d.job.Status.UncountedTerminatedPods
	return u != nil && (slices.Contains(u.Succeeded, uid) || slices.Contains(u.Failed, uid))
}

func (d *draft) release(r release) {
	if d.v.Waits[deedRelease] == 0 {
		d.plan.Release = append(d.plan.Release, r)
	}
}

// releaseJudged releases a pod that has ended. One that isn't on record must not have changed: it might have to be counted after all.
func (d *draft) releaseJudged(e ended) {
	d.release(release{podRef: e.podRef, Unchanged: e.Outcome == spent, Handled: e.Verdict.Action})
}
