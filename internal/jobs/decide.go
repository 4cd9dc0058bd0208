package jobs

import (
	"time"

	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/utils/ptr"
)

// limits are what the operator of the engine can set.
type limits struct {
	// PodFailureBackoff is the delay after one failure, MaxPodFailureBackoff that after very many.
	PodFailureBackoff, MaxPodFailureBackoff time.Duration
}

// decide says what to do about a Job: it is the whole engine, without its hands. It reads no clock, changes nothing, and knows only its arguments.
func decide(job *batchv1.Job, v *view, now time.Time, lim limits) plan {
	if isFinished(job) {
		return tidy(v)
	}
	if job.DeletionTimestamp == nil && len(v.Claims) > 0 && v.Waits[deedClaim] == 0 {
		return plan{Claim: v.Claims}
	}
	d := newDraft(job, v, now, lim)
	if job.DeletionTimestamp == nil && len(v.Claims) > 0 {
		d.plan.lookAgain(v.Waits[deedClaim])
	}
	d.settle()
	d.start()
	d.judge()
	d.manage()
	d.conclude()
	return d.finish()
}

// draft is a plan in the making.
type draft struct {
	job *batchv1.Job
	v   *view
	now time.Time
	lim limits

	plan   plan
	status batchv1.JobStatus

	// succeeded and failed are all known ends, whether status counts them yet or not.
	succeeded, failed int32
	// slot is the next free one, of a Job without indexes.
	slot int64
	// doneIndexes and failedIndexes are those of an Indexed Job that have succeeded, and have been given up, whether status says so yet or not.
	doneIndexes, failedIndexes intervals
	// ending is the interim condition FailureTarget or SuccessCriteriaMet, if there is one; stands says that it is written already.
	ending *batchv1.JobCondition
	stands bool
}

func newDraft(job *batchv1.Job, v *view, now time.Time, lim limits) *draft {
	d := &draft{job: job, v: v, now: now, lim: lim.wishedBy(job)}
	job.Status.DeepCopyInto(&d.status)
	if d.status.UncountedTerminatedPods == nil {
		d.status.UncountedTerminatedPods = &batchv1.UncountedTerminatedPods{}
	}
	d.status.Active, d.status.Ready, d.status.Terminating = v.Active, ptr.To(v.Ready), ptr.To(v.Terminating)
	return d
}

// suspended says whether the user wants the Job to rest (spec.suspend, KEP-2232).
func (d *draft) suspended() bool { return ptr.Deref(d.job.Spec.Suspend, false) }

func (d *draft) deleting() bool { return d.job.DeletionTimestamp != nil }

func (d *draft) event(kind, reason, message string) {
	d.plan.Events = append(d.plan.Events, event{kind, reason, message})
}

// finish puts the status into the plan if it isn't what stands already.
func (d *draft) finish() plan {
	if !sameStatus(&d.job.Status, &d.status) {
		d.plan.Status = &d.status
	}
	return d.plan
}

// sameStatus compares two statuses, taking what was never written for zero.
func sameStatus(a, b *batchv1.JobStatus) bool {
	x, y := *a, *b
	for _, s := range []*batchv1.JobStatus{&x, &y} {
		s.Ready, s.Terminating = ptr.To(ptr.Deref(s.Ready, 0)), ptr.To(ptr.Deref(s.Terminating, 0))
		if s.UncountedTerminatedPods == nil {
			s.UncountedTerminatedPods = &batchv1.UncountedTerminatedPods{}
		}
	}
	return equality.Semantic.DeepEqual(x, y)
}

// tidy is the plan for a finished Job: whatever pod still carries the tracking finalizer loses it uncounted, and if it runs, it ends.
func tidy(v *view) plan {
	var p plan
	if v.Tracked > 0 && v.Waits[deedDelete] == 0 {
		for _, active := range v.dispensable(v.Active) {
			if active.tracked() {
				p.Delete = append(p.Delete, deletion{podRef: active.podRef})
			}
		}
	}
	if v.Tracked > 0 && v.Waits[deedRelease] == 0 {
		for _, ref := range v.tracked(func(*pod) bool { return true }) {
			p.Release = append(p.Release, release{podRef: ref})
		}
	}
	p.lookAgain(v.Waits[deedDelete])
	p.lookAgain(v.Waits[deedRelease])
	return p
}
