package podtrace

import (
	"encoding/hex"
	"slices"
	"time"
)

// Trace is where a pod's time went.
type Trace struct {
	Identity
	// TraceID is the trace's in OpenTelemetry's form.
	TraceID string `json:"traceID"`
	// Over says that nothing more will happen to the pod.
	Over bool `json:"over"`
	// Start is the beginning of the first step; Duration reaches to the end of the
	// last one, in nanoseconds.
	Start    time.Time     `json:"start"`
	Duration time.Duration `json:"durationNanoseconds"`
	// Dropped is how many steps there were that aren't told of.
	Dropped int `json:"dropped,omitempty"`
	// Steps are in the order of their beginnings.
	Steps []Step `json:"steps"`
}

// Step is a step and its parts.
type Step struct {
	Name      string    `json:"name"`
	Container string    `json:"container,omitempty"`
	Detail    string    `json:"detail,omitempty"`
	Start     time.Time `json:"start"`
	// Duration in nanoseconds; of a step that is Running, up to now.
	Duration time.Duration `json:"durationNanoseconds"`
	Running  bool          `json:"running,omitempty"`
	Error    string        `json:"error,omitempty"`
	Steps    []Step        `json:"steps,omitempty"`
}

// Find returns the trace of the last pod of that name; false if it isn't among
// those remembered.
func (r *Recorder) Find(namespace, name string) (*Trace, bool) {
	if r == nil {
		return nil, false
	}
	now := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	var found *entry
	for _, e := range r.pods {
		if e.id.Namespace != namespace || e.id.Name != name {
			continue
		}
		// A name may have been used again.
		if found == nil || e.steps != nil && e.begin() > found.begin() {
			found = e
		}
	}
	if found == nil {
		return nil, false
	}
	return found.trace(now), true
}

func (e *entry) begin() int64 {
	if len(e.steps) == 0 {
		return 0
	}
	return e.steps[0].start
}

// trace makes the tree. r.mu must be held.
func (e *entry) trace(now time.Time) *Trace {
	id := TraceID(e.id.UID)
	t := &Trace{Identity: e.id, TraceID: hex.EncodeToString(id[:]), Over: e.closed, Dropped: e.dropped}
	below := map[int][]int{}
	for i := range e.steps {
		below[e.steps[i].parent] = append(below[e.steps[i].parent], i)
	}
	t.Steps = e.tree(below, whole, now)
	var end time.Time
	t.Start, end = e.bounds()
	for _, s := range t.Steps {
		end = latest(end, s.Start.Add(s.Duration))
	}
	t.Duration = end.Sub(t.Start)
	return t
}

// tree makes the parts of the step at the place.
func (e *entry) tree(below map[int][]int, place int, now time.Time) []Step {
	var out []Step
	for _, i := range below[place] {
		s := &e.steps[i]
		n := Step{
			Name: s.name, Container: s.container, Detail: s.detail, Error: e.failures[i],
			Start: time.Unix(0, s.start).UTC(), Duration: time.Duration(s.took), Running: s.took == running,
			Steps: e.tree(below, i, now),
		}
		if n.Running {
			n.Duration = max(now.Sub(n.Start), 0)
		}
		out = append(out, n)
	}
	slices.SortStableFunc(out, func(a, b Step) int { return a.Start.Compare(b.Start) })
	return out
}
