package clusterengine

import (
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// errFenced is what a request ends with that would be made without the lease.
var errFenced = errors.New("the lease isn't held any more, so that another replica may be acting: the request isn't sent")

// A fence lets requests pass only while the lease is held for sure: until so
// long after the last renewal was sent. It needs nobody to tell it that time is
// up. A process that was stopped, swapped out or suspended, and wakes up beside
// its successor, is held back at its first request, though nothing in it has yet
// had the time to notice.
type fence struct {
	// holds is how long a renewal holds.
	holds time.Duration
	now   func() time.Time

	mu sync.Mutex
	// until is when it closes; zero while it is closed for good or not open yet.
	until time.Time
}

// renewed opens the fence, or keeps it open, by a renewal that was sent then.
func (f *fence) renewed(sent time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.until = sent.Add(f.holds)
}

// close closes the fence.
func (f *fence) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.until = time.Time{}
}

// check returns nil where a request may be sent. Both clocks must say so: the
// monotonic one can't be set, but stands still while the machine is suspended.
func (f *fence) check() error {
	f.mu.Lock()
	until := f.until
	f.mu.Unlock()
	now := f.now()
	if now.Before(until) && now.Round(0).Before(until.Round(0)) {
		return nil
	}
	return errFenced
}

// overdue says for how long the lease should have been given up by now; 0 if it
// is held, or isn't this process's.
func (f *fence) overdue() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.until.IsZero() {
		return 0
	}
	return max(f.now().Sub(f.until), 0)
}

// guard makes a transport whose requests the fence may hold back.
func (f *fence) guard(next http.RoundTripper) http.RoundTripper {
	return fenced{fence: f, next: next}
}

type fenced struct {
	fence *fence
	next  http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (t fenced) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := t.fence.check(); err != nil {
		if r.Body != nil {
			err = errors.Join(err, r.Body.Close()) // as the interface demands
		}
		return nil, fmt.Errorf("%s %s: %w", r.Method, r.URL.Path, err)
	}
	return t.next.RoundTrip(r)
}

// WrappedRoundTripper lets client-go find the transport beneath.
func (t fenced) WrappedRoundTripper() http.RoundTripper { return t.next }
