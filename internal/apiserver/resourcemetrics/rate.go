package resourcemetrics

import "time"

// minRate is the shortest time that a container's rate is told of: the counters
// of some kernels move by ticks of 10 ms.
const minRate = 100 * time.Millisecond

// usage is what something uses.
type usage struct {
	at      time.Time     // when it was measured
	window  time.Duration // over which CPU was
	nanoCPU int64         // billionths of a core
	memory  int64         // bytes
}

// rate is the usage between two readings, of which before may be nil. false means
// that there is none yet.
func rate(before, now *counters) (usage, bool) {
	if !now.hasCPU || !now.hasMemory {
		return usage{}, false
	}
	from, spent := now.started, now.cpu
	if before != nil && before.hasCPU && !now.started.After(before.at) { // the same container
		from, spent = before.at, now.cpu-before.cpu
	}
	if spent < 0 {
		return usage{}, false // counted anew, but from when?
	}
	window := now.at.Sub(from)
	if from.IsZero() || window < minRate {
		return usage{}, false
	}
	return usage{
		at:      now.at,
		window:  window,
		nanoCPU: int64(float64(spent) / window.Seconds()),
		memory:  now.memory,
	}, true
}
