package podtrace

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"
)

// world is a Recorder with a clock that a test sets, and what its sink was told.
type world struct {
	*Recorder
	mu    sync.Mutex
	at    time.Time
	steps []Finished
	jobs  []Finished
}

func newWorld() *world {
	w := &world{at: time.Unix(1000, 0)}
	w.Recorder = New(func() time.Time { return w.at }, w)
	return w
}

func (w *world) pass(ms int) { w.at = w.at.Add(time.Duration(ms) * time.Millisecond) }

func (w *world) Step(_ Identity, f Finished) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.steps = append(w.steps, f)
}

func (w *world) Job(_ Identity, f Finished) { w.jobs = append(w.jobs, f) }

func identity(n int) Identity {
	return Identity{Namespace: "ns", Name: fmt.Sprint("p", n), UID: fmt.Sprintf("%08x-0000-4000-8000-000000000000", n+1)}
}

// A pod's steps become a tree, whoever does them and in whatever order they end.
func TestTree(t *testing.T) {
	w := newWorld()
	id := identity(0)
	id.JobName, id.JobUID = "j", "some-job"
	pod := w.Pod(id)
	began := w.at
	w.pass(2)
	pod.Record(Done{Name: "SyncJob", Start: began, End: w.at, Below: []Done{{Name: "CreatePod", Start: began.Add(time.Millisecond), End: w.at}}})
	pod.Mark("PodSeen")
	ctx := pod.Context(t.Context(), "c")
	ctx, starting := Start(ctx, "StartContainer", "")
	w.pass(1)
	inner, run := Start(ctx, "RunInShim", "")
	w.pass(3)
	run.Record(Done{Name: "Launch", Detail: "errand", Start: w.at.Add(-2 * time.Millisecond), End: w.at})
	run.End(nil)
	if _, below := Start(inner, "late", ""); below == nil {
		t.Error("a context is of no use after its step's end")
	} else {
		below.End(nil)
	}
	starting.End(errors.New("no such file"))
	starting.End(nil)
	pull := pod.Start("PullImage", "busybox")
	w.pass(5)

	got, ok := w.Find("ns", "p0")
	if !ok || got.UID != id.UID || got.TraceID != "00000001000040008000000000000000" || got.Over || got.Duration != 11*time.Millisecond {
		t.Fatalf("%+v, %v", got, ok)
	}
	want := `SyncJob 2ms
  CreatePod 1ms
PodSeen 0s
StartContainer[c] 4ms: no such file
  RunInShim[c] 3ms
    Launch[c](errand) 2ms
    late[c] 0s
PullImage(busybox) 5ms...
`
	if text := show(got.Steps, ""); text != want {
		t.Errorf("got\n%s", text)
	}
	pull.End(nil)
	pod.Reached(Freed)
	pod.Reached(StatusWritten)
	if got, _ := w.Find("ns", "p0"); got.Over {
		t.Error("it is over before its Job has counted it")
	}
	w.pass(1)
	pod.Record(Done{Name: "CountPod", Start: w.at.Add(-time.Millisecond), End: w.at})
	pod.Reached(Counted)
	pod.Reached(Counted)
	pod.Close()
	if got, _ := w.Find("ns", "p0"); !got.Over || got.Duration != 12*time.Millisecond {
		t.Errorf("%+v", got)
	}

	byID := map[uint64]Finished{}
	for _, f := range w.steps {
		if f.End.Before(f.Start) {
			t.Errorf("%s ends before it begins", f.Name)
		}
		if _, twice := byID[f.Span]; twice {
			t.Errorf("%s is told of twice", f.Name)
		}
		byID[f.Span] = f
	}
	if len(w.steps) != 10 {
		t.Errorf("%d steps were told of", len(w.steps))
	}
	root := w.steps[len(w.steps)-1]
	if root.Name != "Pod" || root.Parent != 0 || root.Span != RootSpan(id.UID) || root.End.Sub(root.Start) != 12*time.Millisecond {
		t.Errorf("the pod as a whole: %+v", root)
	}
	for _, f := range w.steps {
		if _, known := byID[f.Parent]; !known && f.Parent != 0 {
			t.Errorf("the parent of %s is nobody", f.Name)
		}
	}
}

func show(steps []Step, indent string) string {
	out := ""
	for _, s := range steps {
		out += indent + s.Name
		if s.Container != "" {
			out += "[" + s.Container + "]"
		}
		if s.Detail != "" {
			out += "(" + s.Detail + ")"
		}
		out += " " + s.Duration.String()
		if s.Running {
			out += "..."
		}
		if s.Error != "" {
			out += ": " + s.Error
		}
		out += "\n" + show(s.Steps, indent+"  ")
	}
	return out
}

// Those that have ended make room for others; those that haven't don't, but are
// bounded themselves.
func TestBounds(t *testing.T) {
	w := newWorld()
	old := w.Pod(identity(0))
	old.Mark("PodSeen")
	for n := 1; n <= Keep+1; n++ {
		pod := w.Pod(identity(n))
		pod.Mark("PodSeen")
		pod.Close()
	}
	for n, want := range map[int]bool{0: true, 1: false, 2: true, Keep + 1: true} {
		if _, ok := w.Find("ns", fmt.Sprint("p", n)); ok != want {
			t.Errorf("pod %d is remembered: %v", n, ok)
		}
	}
	for range maxSteps + 10 {
		old.Mark("again")
	}
	if got, _ := w.Find("ns", "p0"); len(got.Steps) != maxSteps || got.Dropped != 11 {
		t.Errorf("%d steps, %d dropped", len(got.Steps), got.Dropped)
	}
	before := len(w.steps)
	for n := range maxOpen + 5 {
		w.Pod(identity(10*Keep + n)).Mark("PodSeen")
	}
	if len(w.pods) != Keep+maxOpen || len(w.steps)-before != maxOpen+5 {
		t.Errorf("%d are remembered, %d told of", len(w.pods), len(w.steps)-before)
	}
}

// A name that was used again means the later pod.
func TestNamesUsedAgain(t *testing.T) {
	w := newWorld()
	for n := range 2 {
		id := identity(n)
		id.Name = "same"
		w.Pod(id).Mark("PodSeen")
		w.pass(1)
	}
	if got, _ := w.Find("ns", "same"); got.UID != identity(1).UID {
		t.Errorf("%+v", got)
	}
	if _, ok := w.Find("other", "same"); ok {
		t.Error("found in another namespace")
	}
}

// Without a record nothing is done, and nobody has to ask whether there is one.
func TestNone(t *testing.T) {
	var none *Recorder
	pod := none.Pod(identity(0))
	pod.Mark("x")
	pod.Record(Done{})
	pod.Reached(Freed)
	pod.Close()
	pod.Start("x", "").End(nil)
	none.Job(identity(0), time.Time{}, time.Time{}, "")
	ctx, span := Start(pod.Context(t.Context(), "c"), "x", "")
	span.Record(Done{})
	span.End(nil)
	if ctx != t.Context() {
		t.Error("the context has grown")
	}
	if _, ok := none.Find("ns", "p0"); ok {
		t.Error("found something")
	}
	if n := testing.AllocsPerRun(100, func() {
		_, span := Start(ctx, "x", "")
		span.End(nil)
	}); n != 0 {
		t.Errorf("%v allocations for nothing", n)
	}
}

func TestIDs(t *testing.T) {
	for _, uid := range []string{"static-pod", "00000000-0000-0000-0000-000000000000", ""} {
		if id := TraceID(uid); id == [16]byte{} || RootSpan(uid) == 0 || id != TraceID(uid) {
			t.Errorf("%q: %x", uid, id)
		}
	}
}

// BenchmarkPod is what a pod's record costs where nobody asks for it.
func BenchmarkPod(b *testing.B) {
	b.ReportAllocs()
	r := New(nil, nil)
	n := 0
	for b.Loop() {
		pod := r.Pod(identity(n))
		n++
		ctx := pod.Context(context.Background(), "c")
		for range 10 {
			outer, step := Start(ctx, "RunPodSandbox", "")
			_, inner := Start(outer, "AttachNetwork", "")
			inner.End(nil)
			step.End(nil)
		}
		pod.Close()
	}
}

// All of it may be used by many at once.
func TestConcurrently(t *testing.T) {
	r := New(nil, nil)
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for n := range 200 {
				pod := r.Pod(identity(n))
				ctx, outer := Start(pod.Context(t.Context(), "c"), "outer", "")
				_, inner := Start(ctx, "inner", "")
				inner.Record(Done{Name: "done"})
				inner.End(errors.New("no"))
				outer.End(nil)
				if worker%2 == 0 {
					pod.Reached(StatusWritten)
				} else {
					pod.Reached(Freed)
				}
				r.Find("ns", fmt.Sprint("p", n))
				pod.Close()
			}
		})
	}
	wg.Wait()
	if r.open != 0 || len(r.ended) != 200 {
		t.Errorf("%d are open, %d have ended", r.open, len(r.ended))
	}
}
