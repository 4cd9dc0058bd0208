package apiserver

import (
	"time"

	"k8s.io/utils/clock"
)

// alignment is how far apart an alignedClock's timers end.
const alignment = time.Second

// alignedClock makes timers of a second and more end together, up to a second
// late. Each watch cache sets one of about a second, forever: two dozen of them
// would wake an idle machine two dozen times a second.
type alignedClock struct {
	clock.RealClock
	start time.Time
}

func newAlignedClock() alignedClock { return alignedClock{start: time.Now()} }

func (c alignedClock) align(d time.Duration) time.Duration {
	if d < alignment {
		return d
	}
	end := time.Since(c.start) + d
	if rest := end % alignment; rest != 0 {
		d += alignment - rest
	}
	return d
}

// NewTimer implements clock.Clock.
func (c alignedClock) NewTimer(d time.Duration) clock.Timer {
	return &alignedTimer{Timer: c.RealClock.NewTimer(c.align(d)), clock: c}
}

type alignedTimer struct {
	clock.Timer
	clock alignedClock
}

// Reset implements clock.Timer.
func (t *alignedTimer) Reset(d time.Duration) bool { return t.Timer.Reset(t.clock.align(d)) }
