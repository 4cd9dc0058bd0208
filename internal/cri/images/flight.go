package images

import (
	"context"
	"sync"

	"k8s.io/utils/clock"
)

// flightGroup lets callers that want the same thing at the same time share one run. Unlike golang.org/x/sync/singleflight it ends
// the run when the last caller has lost interest, and no sooner: one Pod's deletion must not fail the pull that others wait for.
type flightGroup struct {
	clock   clock.PassiveClock
	mu      sync.Mutex
	flights map[string]*flight
	running sync.WaitGroup
}

type flight struct {
	waiters int
	meter   *meter
	cancel  context.CancelFunc
	done    chan struct{}
	img     Image
	err     error
}

func newFlightGroup(c clock.PassiveClock) *flightGroup {
	return &flightGroup{clock: c, flights: map[string]*flight{}}
}

// do runs fn, or joins the run of key that is under way. fn's context has the values of the first caller's; it ends when all
// callers' have ended, or owner. A caller whose ctx ends gets its error at once. progress may be nil; it is called on the caller's
// own goroutine with what fn's meter tells, also where the caller joined late.
func (g *flightGroup) do(ctx, owner context.Context, key string, progress func(Progress), fn func(context.Context, *meter) (Image, error)) (Image, error) {
	g.mu.Lock()
	f, ok := g.flights[key]
	if !ok {
		f = &flight{done: make(chan struct{}), meter: newMeter(g.clock)}
		run, cancel := context.WithCancel(context.WithoutCancel(ctx))
		stop := context.AfterFunc(owner, cancel)
		f.cancel = cancel
		g.flights[key] = f
		g.running.Go(func() {
			defer stop()
			defer cancel()
			f.img, f.err = fn(run, f.meter)
			g.forget(key, f)
			close(f.done)
		})
	}
	f.waiters++
	g.mu.Unlock()

	var updates <-chan Progress
	if progress != nil {
		watched, stop := f.meter.watch()
		defer stop()
		updates = watched
	}
	for {
		select {
		case <-f.done:
			select {
			case p := <-updates: // the last word
				progress(p)
			default:
			}
			return f.img, f.err
		case <-ctx.Done():
			g.leave(key, f)
			return Image{}, ctx.Err()
		case p := <-updates:
			progress(p)
		}
	}
}

func (g *flightGroup) leave(key string, f *flight) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if f.waiters--; f.waiters > 0 {
		return
	}
	f.cancel()
	// Whoever comes now must not join a run that is being cancelled.
	if g.flights[key] == f {
		delete(g.flights, key)
	}
}

func (g *flightGroup) forget(key string, f *flight) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.flights[key] == f {
		delete(g.flights, key)
	}
}

// wait returns when no run is under way.
func (g *flightGroup) wait() { g.running.Wait() }
