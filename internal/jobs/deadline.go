package jobs

import (
	"time"

	batchv1 "k8s.io/api/batch/v1"
)

// deadlineLeft returns how long the Job may still run (spec.activeDeadlineSeconds), counted from started; limited is false if it may run for
// ever. Time spent suspended isn't in it, since a resumed Job starts anew.
func deadlineLeft(job *batchv1.Job, started, now time.Time) (left time.Duration, limited bool) {
	if job.Spec.ActiveDeadlineSeconds == nil || started.IsZero() {
		return 0, false
	}
	return time.Duration(*job.Spec.ActiveDeadlineSeconds)*time.Second - now.Sub(started), true
}

// startedAt is when the Job began to run: to the second in its status, exactly if this process saw it.
func (d *draft) startedAt() time.Time {
	if d.status.StartTime == nil {
		return time.Time{}
	}
	if start := d.status.StartTime.Time; !d.v.StartedAt.Truncate(time.Second).Equal(start.Truncate(time.Second)) {
		return start
	}
	return d.v.StartedAt
}
