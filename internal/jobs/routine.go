package jobs

import (
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/util/flowcontrol"
)

// client-go's recorder lets a component tell 25 normal things of an object at once, and one more each five minutes; the rest it drops, whatever
// they say. The pods of a large Job would take all of that, and that it was suspended, or is complete, would never be told. So events of single
// pods have three fifths of it.
const (
	routineBurst     = 15
	routinePerSecond = 1. / 600
)

// routinef records an event about one of many pods, unless too many were recorded already.
func (e *engine) routinef(s *jobState, job *batchv1.Job, reason, format string, args ...any) {
	if e.routine(s).TryAccept() {
		e.recorder.Eventf(job, corev1.EventTypeNormal, reason, format, args...)
	}
}

func (e *engine) routine(s *jobState) flowcontrol.PassiveRateLimiter {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.routine == nil {
		s.routine = flowcontrol.NewTokenBucketPassiveRateLimiterWithClock(routinePerSecond, routineBurst, e.clock)
	}
	return s.routine
}
