package plan

import (
	"time"

	"errand.dev/errand/internal/node/runtimepod"
)

// The kubelet's delays between the runs of a container that keeps ending.
const (
	CrashLoopInitial = 10 * time.Second
	CrashLoopMax     = 5 * time.Minute
)

// forgiveAfter is how long a container must have run for its past to be
// forgotten.
const forgiveAfter = 2 * CrashLoopMax

// CrashLoop is the back-off of one container of one pod. The zero value is that
// of a container which has not ended yet.
type CrashLoop struct {
	// Delay is what the next run has to wait for after the end of the last one;
	// 0 for the first restart, which comes at once.
	Delay time.Duration
	// Since is when the last run was let through.
	Since time.Time
}

// Until returns the time before which the container must not run again, given
// its last run.
func (b CrashLoop) Until(last *runtimepod.Container) time.Time {
	if b.forgiven(last) {
		return last.FinishedAt
	}
	return last.FinishedAt.Add(b.Delay)
}

// Next returns the back-off once the container was let through at now, after
// the end of its run last.
func (b CrashLoop) Next(last *runtimepod.Container, now time.Time) CrashLoop {
	if b.Delay == 0 || b.forgiven(last) {
		return CrashLoop{Delay: CrashLoopInitial, Since: now}
	}
	return CrashLoop{Delay: min(2*b.Delay, CrashLoopMax), Since: now}
}

func (b CrashLoop) forgiven(last *runtimepod.Container) bool {
	return b.Delay > 0 && last.FinishedAt.Sub(b.Since) > forgiveAfter
}

// Recall rebuilds the back-off from the last run, after a restart of the node's
// agent: it must not let a container that keeps failing begin afresh.
func Recall(last *runtimepod.Container) CrashLoop {
	if last.RestartCount == 0 {
		return CrashLoop{}
	}
	delay := CrashLoopInitial
	for range last.RestartCount - 1 {
		if delay = min(2*delay, CrashLoopMax); delay == CrashLoopMax {
			break
		}
	}
	since := last.StartedAt
	if since.IsZero() {
		since = last.CreatedAt
	}
	return CrashLoop{Delay: delay, Since: since}
}
