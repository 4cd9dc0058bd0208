package podtrace

import (
	"sync"
	"time"
)

const (
	// Keep is how many pods that have ended are remembered.
	Keep = 1000
	// maxOpen is how many pods that haven't ended are: a Job may create many
	// more at once than a node takes. The steps of further ones are not.
	maxOpen = 10 * Keep
	// maxSteps bounds a pod's steps: a container may be restarted for ever.
	maxSteps = 64
	// running is the duration of a step that hasn't ended.
	running = -1
)

// Milestone is something that a pod must have reached to be over.
type Milestone uint8

const (
	// StatusWritten: the API has the pod's final status.
	StatusWritten Milestone = 1 << iota
	// Freed: what the pod had of the machine has been given back.
	Freed
	// Counted: the pod's Job has counted it. Pods of no Job needn't be.
	Counted
)

// Sink takes steps when they have ended. It is called from many goroutines, by
// whoever has just done the step, and must not block.
type Sink interface {
	Step(pod Identity, step Finished)
	// Job takes the run of a whole Job, in a trace of its own.
	Job(job Identity, step Finished)
}

// Finished is a step that has ended.
type Finished struct {
	// Span is the step's ID; Parent that of the step that it is a part of, 0 for
	// the pod as a whole.
	Span, Parent uint64
	// Name is what is done: a name of the CRI's where it has one.
	Name string
	// Container is the container's that it is about, if it is about one.
	Container string
	// Detail is an image, a phase, an exit code: what Name calls for.
	Detail     string
	Start, End time.Time
	// Error is why it failed; "" if it didn't.
	Error string
}

// Recorder is the record of recent pods. Its methods, and those of all that it
// makes, may be called concurrently. A nil Recorder records nothing.
type Recorder struct {
	now  func() time.Time
	sink Sink

	mu     sync.Mutex
	pods   map[string]*entry // by UID
	open   int               // how many of them haven't ended
	ended  []*entry          // the others: a ring, once there are Keep
	oldest int               // in ended
}

// entry is the record of one pod. The Recorder's mutex guards it.
type entry struct {
	id      Identity
	reached Milestone
	closed  bool
	dropped int // steps beyond maxSteps
	steps   []step
	// failures are why steps failed, by their places in steps.
	failures map[int]string
}

// step is a step as it is kept: small.
type step struct {
	name      string
	container string
	detail    string
	start     int64 // nanoseconds since 1970
	took      int64 // nanoseconds, or running
	parent    int   // the place of the step that it is a part of, or whole
}

// whole is the place of the pod as a whole, and of steps that aren't kept.
const whole = -1

// New makes a Recorder. now tells the time; nil means the real one. sink may be nil.
func New(now func() time.Time, sink Sink) *Recorder {
	if now == nil {
		now = time.Now
	}
	return &Recorder{now: now, sink: sink, pods: map[string]*entry{}}
}

// Pod returns a handle of a pod, which is recorded from its first step on.
func (r *Recorder) Pod(id Identity) Pod { return Pod{r, id} }

// Job hands the run of a whole Job to the sink; it isn't recorded.
func (r *Recorder) Job(job Identity, start, end time.Time, failure string) {
	if r == nil || r.sink == nil {
		return
	}
	r.sink.Job(job, Finished{Span: RootSpan(job.JobUID), Name: "Job", Start: start, End: latest(start, end), Error: failure})
}

// entry returns the pod's record, nil if there is no room for one. r.mu must be held.
func (r *Recorder) entry(id *Identity) *entry {
	e := r.pods[id.UID]
	if e == nil && r.open < maxOpen {
		e = &entry{id: *id, steps: make([]step, 0, 8)}
		r.pods[id.UID] = e
		r.open++
	}
	return e
}

// add notes a step and returns its place, whole if there is none. r.mu must be held.
func (e *entry) add(s step) int {
	if len(e.steps) >= maxSteps {
		e.dropped++
		return whole
	}
	e.steps = append(e.steps, s)
	return len(e.steps) - 1
}

// fail notes why the step at the place failed. r.mu must be held.
func (e *entry) fail(place int, failure string) {
	if failure == "" || place == whole {
		return
	}
	if e.failures == nil {
		e.failures = map[int]string{}
	}
	e.failures[place] = failure
}

// close moves a pod to those that have ended, of which the oldest is forgotten. It
// returns the pod as a step. r.mu must be held.
func (r *Recorder) close(e *entry) Finished {
	e.closed = true
	e.steps = append([]step(nil), e.steps...) // no larger than it must be
	r.open--
	if len(r.ended) < Keep {
		r.ended = append(r.ended, e)
	} else {
		delete(r.pods, r.ended[r.oldest].id.UID)
		r.ended[r.oldest] = e
		r.oldest = (r.oldest + 1) % Keep
	}
	start, end := e.bounds()
	return Finished{Span: RootSpan(e.id.UID), Name: "Pod", Start: start, End: end}
}

// bounds are the beginning of the first step and the end of the last one.
func (e *entry) bounds() (start, end time.Time) {
	for i := range e.steps {
		from, took := time.Unix(0, e.steps[i].start), max(e.steps[i].took, 0)
		if start.IsZero() || from.Before(start) {
			start = from
		}
		end = latest(end, from.Add(time.Duration(took)))
	}
	return start, end
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
