package clusterengine

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"
)

// hand is a clock that a test sets.
type hand struct{ time.Time }

func (h *hand) now() time.Time { return h.Time }

func newFence() (*fence, *hand) {
	h := &hand{time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	return &fence{holds: 10 * time.Second, now: h.now}, h
}

func TestFenceClosesByItself(t *testing.T) {
	f, clock := newFence()
	began := clock.Time
	step := func(what string, at time.Duration, open bool, overdue time.Duration) {
		t.Helper()
		clock.Time = began.Add(at)
		if err := f.check(); (err == nil) != open || err != nil && !errors.Is(err, errFenced) {
			t.Errorf("%s: %v, want it open: %v", what, err, open)
		}
		if got := f.overdue(); got != overdue {
			t.Errorf("%s: it is overdue by %s, want %s", what, got, overdue)
		}
	}
	step("before the lease", 0, false, 0)
	f.renewed(began)
	step("with it", 0, true, 0)
	step("just in time", 10*time.Second-1, true, 0)
	step("at its end", 10*time.Second, false, 0)
	step("long after", time.Hour, false, time.Hour-10*time.Second)
	// An answer that came late counts from when the request was sent.
	f.renewed(began.Add(time.Hour - 4*time.Second))
	step("after a renewal whose answer took 4 s", time.Hour, true, 0)
	step("6 s later", time.Hour+6*time.Second, false, 0)
	f.renewed(clock.Time)
	f.close()
	step("after it was closed", time.Hour+6*time.Second, false, 0)
}

type transport func(*http.Request) (*http.Response, error)

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) { return t(r) }

type body struct {
	*strings.Reader
	closed bool
}

func (b *body) Close() error { b.closed = true; return nil }

func TestFenceHoldsRequestsBack(t *testing.T) {
	f, clock := newFence()
	sent := 0
	guarded := f.guard(transport(func(*http.Request) (*http.Response, error) { sent++; return &http.Response{}, nil }))
	post := func() (*body, error) {
		b := &body{Reader: strings.NewReader("pod")}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://a/api/v1/namespaces/n/pods", b)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := guarded.RoundTrip(r)
		if resp != nil && resp.Body != nil {
			resp.Body.Close()
		}
		return b, err
	}
	f.renewed(clock.Time)
	if _, err := post(); err != nil || sent != 1 {
		t.Errorf("with the lease: %v after %d requests", err, sent)
	}
	clock.Time = clock.Add(10 * time.Second)
	b, err := post()
	if !errors.Is(err, errFenced) || sent != 1 || !b.closed {
		t.Errorf("without: %v after %d requests, body closed: %v", err, sent, b.closed)
	}
}
