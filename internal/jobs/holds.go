package jobs

import "time"

// deed is a kind of action of which each kind fails, and is retried, for itself.
type deed uint8

const (
	deedCreate deed = iota
	deedDelete
	deedClaim
	deedRelease
	deeds
)

const (
	firstHold = time.Second
	mostHold  = time.Minute
)

// hold is the wait after a failed deed.
type hold struct {
	Until time.Time
	// Failures in a row.
	Failures int
}

// holds keep what the API refused from being tried again at once, while everything else of the Job goes on.
type holds [deeds]hold

// fail notes a failed deed: the wait doubles with each failure in a row, and is never shorter than what the server asks for.
func (h *holds) fail(d deed, now time.Time, asked time.Duration) {
	wait := firstHold
	for range h[d].Failures {
		if wait *= 2; wait >= mostHold {
			wait = mostHold
			break
		}
	}
	h[d].Failures++
	h[d].Until = now.Add(max(wait, asked))
}

func (h *holds) clear(d deed) { h[d] = hold{} }

// wait returns how long the deed has to wait yet.
func (h *holds) wait(d deed, now time.Time) time.Duration {
	if h[d].Failures == 0 {
		return 0
	}
	// A clock set back must not prolong the wait.
	return min(max(h[d].Until.Sub(now), 0), mostHold)
}
