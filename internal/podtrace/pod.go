package podtrace

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// Pod records the steps of one pod. The zero Pod records nothing.
type Pod struct {
	r  *Recorder
	id Identity
}

// Done is a step that is told of only once it has ended.
type Done struct {
	Name, Container, Detail string
	Start, End              time.Time
	Err                     error
	// Below are its parts.
	Below []Done
}

// Record notes steps that are over, such as those whose pod wasn't known while
// they were done. An end before its start counts as the start.
func (p Pod) Record(steps ...Done) {
	if p.r == nil {
		return
	}
	for i := range steps {
		p.record(&steps[i], RootSpan(p.id.UID), whole)
	}
}

// record notes a step whose parent has the ID and the place.
func (p Pod) record(d *Done, parent uint64, at int) {
	f := Finished{
		Span: rand.Uint64(), Parent: parent, Name: d.Name, Container: d.Container, Detail: d.Detail,
		Start: d.Start, End: latest(d.Start, d.End), Error: text(d.Err),
	}
	place := whole
	p.r.mu.Lock()
	if e := p.r.entry(&p.id); e != nil {
		place = e.add(step{
			name: f.Name, container: f.Container, detail: f.Detail, start: f.Start.UnixNano(), took: int64(f.End.Sub(f.Start)), parent: at,
		})
		e.fail(place, f.Error)
	}
	p.r.mu.Unlock()
	p.tell(f)
	for i := range d.Below {
		p.record(&d.Below[i], f.Span, place)
	}
}

func (p Pod) tell(f Finished) {
	if p.r.sink != nil {
		p.r.sink.Step(p.id, f)
	}
}

// Mark notes that something happened, which took no time of its own.
func (p Pod) Mark(name string) {
	if p.r == nil {
		return
	}
	now := p.r.now()
	p.Record(Done{Name: name, Start: now, End: now})
}

// Now is the time by the clock of the record.
func (p Pod) Now() time.Time {
	if p.r == nil {
		return time.Time{}
	}
	return p.r.now()
}

// Reached notes a milestone. A pod that has reached all is over.
func (p Pod) Reached(m Milestone) {
	if p.r == nil {
		return
	}
	need := StatusWritten | Freed
	if p.id.JobUID != "" {
		need |= Counted
	}
	p.r.mu.Lock()
	e := p.r.pods[p.id.UID]
	if e == nil || e.closed {
		p.r.mu.Unlock()
		return
	}
	e.reached |= m
	p.end(e, e.reached&need == need)
}

// Close tells that the pod is over, whatever it has reached: it is gone. One of
// which nothing is recorded stays unrecorded.
func (p Pod) Close() {
	if p.r == nil {
		return
	}
	p.r.mu.Lock()
	e := p.r.pods[p.id.UID]
	p.end(e, e != nil && !e.closed)
}

// end ends the pod if it is over, and gives back p.r.mu.
func (p Pod) end(e *entry, over bool) {
	var pod Finished
	if over {
		pod = p.r.close(e)
	}
	p.r.mu.Unlock()
	if over {
		p.tell(pod)
	}
}

// Context returns a context in which Start begins steps of the pod, about a
// container unless that is "".
func (p Pod) Context(ctx context.Context, container string) context.Context {
	if p.r == nil {
		return ctx
	}
	return context.WithValue(ctx, key{}, &Span{pod: p, place: whole, id: RootSpan(p.id.UID), container: container})
}

// key is that of the *Span in a context.
type key struct{}

// Span is a step that is being done. A nil Span is one that isn't recorded.
type Span struct {
	pod        Pod
	entry      *entry
	place      int
	id, parent uint64
	name       string
	container  string
	detail     string
	start      time.Time
	ended      atomic.Bool
}

// Start begins a step below the one that the context is of, and returns the
// context for its parts. Who starts a step must end it.
func Start(ctx context.Context, name, detail string) (context.Context, *Span) {
	parent, _ := ctx.Value(key{}).(*Span)
	if parent == nil {
		return ctx, nil
	}
	s := parent.pod.start(name, parent.container, detail, parent)
	return context.WithValue(ctx, key{}, s), s
}

// Start begins a step of the pod as a whole. One of the zero Pod is nil.
func (p Pod) Start(name, detail string) *Span {
	if p.r == nil {
		return nil
	}
	return p.start(name, "", detail, &Span{place: whole, id: RootSpan(p.id.UID)})
}

func (p Pod) start(name, container, detail string, parent *Span) *Span {
	s := &Span{
		pod: p, place: whole, id: rand.Uint64(), parent: parent.id, name: name, container: container, detail: detail, start: p.r.now(),
	}
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	if s.entry = p.r.entry(&p.id); s.entry != nil {
		s.place = s.entry.add(step{
			name: name, container: container, detail: detail, start: s.start.UnixNano(), took: running, parent: parent.place,
		})
	}
	return s
}

// End ends the step; err is why it failed, if it did. Only the first call counts.
func (s *Span) End(err error) {
	if s == nil || s.ended.Swap(true) {
		return
	}
	r := s.pod.r
	took := max(r.now().Sub(s.start), 0)
	f := Finished{
		Span: s.id, Parent: s.parent, Name: s.name, Container: s.container, Detail: s.detail,
		Start: s.start, End: s.start.Add(took), Error: text(err),
	}
	if s.place != whole {
		r.mu.Lock()
		s.entry.steps[s.place].took = int64(took)
		s.entry.fail(s.place, f.Error)
		r.mu.Unlock()
	}
	s.pod.tell(f)
}

// Record notes a part of the step, or of the context's, that is over.
func (s *Span) Record(d Done) {
	if s == nil {
		return
	}
	if d.Container == "" {
		d.Container = s.container
	}
	s.pod.record(&d, s.id, s.place)
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
