package probe

import (
	"hash/fnv"
	"time"

	v1 "k8s.io/api/core/v1"
)

// period is the time from one turn of a probe to the next.
func period(spec *v1.Probe) time.Duration {
	return max(time.Duration(spec.PeriodSeconds)*time.Second, time.Second)
}

// firstTurn is when a container is asked for the first time. There is no delay
// beyond the one that is asked for, except for a container that was found running:
// after a restart of the agent all probes would be due at once, so that they are
// spread over their periods.
func firstTurn(spec *v1.Probe, t Target, k Kind, now time.Time) time.Time {
	at := t.StartedAt.Add(time.Duration(spec.InitialDelaySeconds) * time.Second)
	if at.Before(now) {
		at = now
	}
	if t.Found {
		at = at.Add(share(t.ID, k, period(spec)))
	}
	return at
}

// nextTurn follows one that began at the given time. One that took longer than the
// period is followed at once.
func nextTurn(spec *v1.Probe, began, now time.Time) time.Time {
	at := began.Add(period(spec))
	if at.Before(now) {
		return now
	}
	return at
}

// share returns a part of d that looks random but is the same for the same probe.
func share(id string, k Kind, d time.Duration) time.Duration {
	h := fnv.New32a()
	_, _ = h.Write(append([]byte(id), byte(k))) // never fails
	return time.Duration(float64(d) * float64(h.Sum32()) / (1 << 32))
}
