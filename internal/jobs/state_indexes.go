package jobs

import (
	"cmp"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
)

// indexes is what the engine knows of the completion indexes of an Indexed Job. What it holds grows with the pods that live, not with the Job.
type indexes struct {
	// completions is the number of indexes.
	completions int32
	// done and failed are those that the Job's status says have succeeded, and have been given up.
	done, failed intervals
	// live are those with pods that aren't over and done with.
	live map[int32]*liveIndex
	// attempts is how many pods an index has had, of those that have had some and aren't done or failed.
	attempts map[int32]int32
}

// liveIndex is an index with pods.
type liveIndex struct {
	pods []*pod
	// busy says that no further pod is to be created for now.
	busy bool
	// last is the pod of the index that failed last, if there is one.
	last *pod
}

func newIndexes() *indexes {
	return &indexes{live: map[int32]*liveIndex{}, attempts: map[int32]int32{}}
}

// readJob takes over what a version of the Job says of its indexes.
func (x *indexes) readJob(job *batchv1.Job) {
	x.completions = *job.Spec.Completions
	x.done = parseIntervals(job.Status.CompletedIndexes, x.completions)
	x.failed = nil
	if job.Status.FailedIndexes != nil {
		x.failed = parseIntervals(*job.Status.FailedIndexes, x.completions)
	}
}

// inRange says whether the Job has such an index.
func (x *indexes) inRange(index int32) bool { return index >= 0 && index < x.completions }

// over says whether the index needs no more pods, ever.
func (x *indexes) over(index int32) bool {
	return !x.inRange(index) || x.done.has(index) || x.failed.has(index)
}

// vacant says whether a pod may be created for an index that is needed.
func (x *indexes) vacant(index int32) bool {
	l := x.live[index]
	return l == nil || !l.busy
}

// add and remove keep account of which pods an index has.
func (x *indexes) add(p *pod) {
	l := x.live[p.index]
	if l == nil {
		l = &liveIndex{}
		x.live[p.index] = l
	}
	l.pods = append(l.pods, p)
}

func (x *indexes) remove(p *pod) {
	l := x.live[p.index]
	if l == nil {
		return
	}
	l.pods = slices.DeleteFunc(l.pods, func(q *pod) bool { return q == p })
	if len(l.pods) > 0 {
		return
	}
	delete(x.live, p.index)
	if x.over(p.index) {
		delete(x.attempts, p.index)
	}
}

// take notes that an attempt at an index has been made.
func (x *indexes) take(slot int64) {
	index := indexOfSlot(slot)
	x.attempts[index] = max(x.attempts[index], attemptOfSlot(slot)+1)
}

// learnAttempt notes how often an index was attempted, by the name of one of its pods.
func (s *jobState) learnAttempt(p *pod) {
	if s.indexes == nil || s.indexes.over(p.index) {
		return
	}
	names, first := s.names(), s.indexes.attempts[p.index]
	for n := first; n < first+attemptsAhead; n++ {
		if slot := slotOf(p.index, n); names.at(slot) == p.Name {
			s.indexes.take(slot)
			return
		}
	}
}

// readIndexes takes over what a version of the Job says of its indexes. Its pods may be known already.
func (s *jobState) readIndexes(job *batchv1.Job) {
	first := s.indexes == nil
	if first {
		s.indexes = newIndexes()
	}
	s.indexes.readJob(job)
	if first {
		for _, p := range s.pods {
			s.learnAttempt(p)
		}
	}
}

// attemptsAhead is how many more pods an index is taken to have had than are known. Beyond that the API says which names are taken.
const attemptsAhead = 16

// outOfRange says whether the pod has an index that its Job doesn't have.
func (s *jobState) outOfRange(p *pod) bool { return s.indexes != nil && !s.indexes.inRange(p.index) }

// review finds out what the pods of an index mean for each other, after one of them has changed.
func (s *jobState) review(index int32) {
	l := s.indexes.live[index]
	if l == nil || s.job == nil {
		return
	}
	over := s.indexes.over(index)
	var best *pod
	l.busy, l.last = false, nil
	for _, p := range l.pods {
		switch {
		case p.outcome == succeeded || p.failsIndex:
			over = true
		case p.stage == stageActive:
			if best == nil || compareWorth(p, best) > 0 {
				best = p
			}
		case p.stage == stageTerminating && replacesFailedOnly(s.job):
			l.busy = true
		}
		if p.failedTracked() && (l.last == nil || compareFailures(p, l.last) > 0) {
			l.last = p
		}
	}
	l.busy = l.busy || over || best != nil
	for _, p := range l.pods {
		s.setSurplus(p, p.stage == stageActive && (over || p != best))
		s.setHeld(p, p == l.last && limitsPerIndex(s.job) && !over && best == nil && !s.closing &&
			p.verdict.Action != batchv1.PodFailurePolicyActionFailJob)
	}
}

// failedTracked says whether the pod has failed, or counts as failed, and still carries the number of its index's failures.
func (p *pod) failedTracked() bool {
	return p.tracked() && (p.stage == stageFailed || p.stage == stageTerminating)
}

// compareFailures orders the failed pods of an index in time.
func compareFailures(a, b *pod) int {
	return cmp.Or(cmp.Compare(a.before.total(), b.before.total()), a.endedAt.Compare(b.endedAt), cmp.Compare(a.Name, b.Name))
}

// setSurplus says whether the Job has no use for the active pod.
func (s *jobState) setSurplus(p *pod, surplus bool) {
	if p.surplus != surplus {
		p.surplus = surplus
		if surplus {
			s.sum.surplus++
		} else {
			s.sum.surplus--
		}
	}
}

// setHeld says whether the pod, if it has ended and isn't counted, has to wait with that until its index has another.
func (s *jobState) setHeld(p *pod, held bool) {
	switch {
	case p.outcome == notEnded || held:
		s.unqueue(p)
	case p.waiting == nil:
		p.waiting = s.waiting.PushBack(p)
	}
}

// unqueue takes a pod out of those that wait to be counted.
func (s *jobState) unqueue(p *pod) {
	if p.waiting != nil {
		s.waiting.Remove(p.waiting)
		p.waiting = nil
	}
}

// reviewAll looks at all indexes, after a change that concerns them all.
func (s *jobState) reviewAll() {
	if s.indexes == nil {
		return
	}
	for index := range s.indexes.live {
		s.review(index)
	}
}
