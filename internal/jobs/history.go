package jobs

import (
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/types"

	"errand.dev/errand/internal/jobannotations"
)

// historyDepth is how many failures are remembered: enough for the delay to have doubled from a millisecond beyond any sensible maximum.
const historyDepth = 32

// failureHistory tells how many pods of a Job have failed since one last succeeded. It doesn't depend on the order in which ends are learnt,
// so that it is the same after a restart as before, as long as the pods still exist.
type failureHistory struct {
	// LastSuccess is when a pod last succeeded; zero if none has.
	LastSuccess time.Time
	// Failures since then, newest first, at most historyDepth.
	Failures []failure
}

type failure struct {
	UID types.UID
	At  time.Time
}

// failedAt returns the history with one more failed pod; a pod that is in it already isn't added again.
func (h failureHistory) failedAt(uid types.UID, at time.Time) failureHistory {
	if !at.After(h.LastSuccess) || slices.ContainsFunc(h.Failures, func(f failure) bool { return f.UID == uid }) {
		return h
	}
	i := 0
	for i < len(h.Failures) && h.Failures[i].At.After(at) {
		i++
	}
	h.Failures = slices.Insert(slices.Clone(h.Failures), i, failure{UID: uid, At: at})
	h.Failures = h.Failures[:min(len(h.Failures), historyDepth)]
	return h
}

// succeededAt returns the history with one more succeeded pod: failures before it don't delay anything any more.
func (h failureHistory) succeededAt(at time.Time) failureHistory {
	if !at.After(h.LastSuccess) {
		return h
	}
	h.LastSuccess = at
	later := slices.IndexFunc(h.Failures, func(f failure) bool { return !f.At.After(at) })
	if later >= 0 {
		h.Failures = slices.Clone(h.Failures[:later])
	}
	return h
}

// backoffDelay returns how long to wait from now before a failed pod is replaced: base after one failure, doubling with each further one up to
// most, counted from the last failure (Job.spec.backoffLimit's delay). A last failure in the future (the clock was set back) delays by no
// more than the whole delay.
func backoffDelay(h failureHistory, now time.Time, lim limits) time.Duration {
	if len(h.Failures) == 0 {
		return 0
	}
	return delayAfter(len(h.Failures), h.Failures[0].At, now, lim)
}

// delayAfter is the delay after so many failures, the last of them at that time.
func delayAfter(failures int, last, now time.Time, lim limits) time.Duration {
	if failures == 0 || lim.PodFailureBackoff <= 0 {
		return 0
	}
	delay := lim.PodFailureBackoff
	for range failures - 1 {
		if delay >= lim.MaxPodFailureBackoff {
			break
		}
		delay *= 2
	}
	delay = min(delay, lim.MaxPodFailureBackoff)
	return min(max(delay-now.Sub(last), 0), delay)
}

// backoff is how long the failures of the Job's pods delay the next; 0 if they delay only their own indexes.
func (d *draft) backoff() time.Duration {
	if limitsPerIndex(d.job) {
		return 0
	}
	return backoffDelay(d.v.History, d.now, d.lim)
}

// wishedBy returns the limits with those in their place that the Job asks for.
func (l limits) wishedBy(job *batchv1.Job) limits {
	if d, ok := jobannotations.Duration(job.Annotations, jobannotations.MaxPodFailureBackoff); ok {
		l.MaxPodFailureBackoff = d
		l.PodFailureBackoff = min(l.PodFailureBackoff, d)
	}
	if d, ok := jobannotations.Duration(job.Annotations, jobannotations.PodFailureBackoff); ok {
		l.PodFailureBackoff = d
		l.MaxPodFailureBackoff = max(l.MaxPodFailureBackoff, d)
	}
	return l
}
