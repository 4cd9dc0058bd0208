package node

import (
	"context"
	"errors"
	"math"
	"time"

	v1 "k8s.io/api/core/v1"
	crierrors "k8s.io/cri-api/pkg/errors"
	"k8s.io/klog/v2"

	"errand.dev/errand/internal/node/hook"
	"errand.dev/errand/internal/node/runtimepod"
)

// stopOrder says how a container is to be stopped.
type stopOrder struct {
	// grace is what its preStop hook and its process have together. The process
	// gets at least minGrace of its own, however long the hook took.
	grace   time.Duration
	message string // for the Killing event; "": the usual one
	host    string // where the hook's requests go
}

// stop is a container on its way to its end.
type stop struct {
	hook       *preStop  // nil if it has none, or no time for it
	killBy     time.Time // zero before the runtime is to stop it
	calls      int       // of the runtime, one after the other
	cancelCall context.CancelFunc
}

// preStop is a preStop hook under way or over.
type preStop struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// beginStop tells of a container's end and starts its preStop hook, both once.
func (w *worker) beginStop(ctx context.Context, pod *v1.Pod, c *runtimepod.Container, order stopOrder) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.begunStop(ctx, pod, c, order)
}

// begunStop is beginStop with w.mu held.
func (w *worker) begunStop(ctx context.Context, pod *v1.Pod, c *runtimepod.Container, order stopOrder) *stop {
	s := w.stops[c.ID]
	if s == nil {
		s = &stop{cancelCall: func() {}}
		w.stops[c.ID] = s
		w.tellKilling(pod, c, order.message)
		s.hook = w.startPreStop(ctx, pod, c, order)
	}
	return s
}

// startPreStop starts the container's preStop hook in a goroutine of its own. It
// ends with the container at the latest.
func (w *worker) startPreStop(ctx context.Context, pod *v1.Pod, c *runtimepod.Container, order stopOrder) *preStop {
	spec := findContainer(pod, c.Name)
	if spec == nil || spec.Lifecycle == nil || spec.Lifecycle.PreStop == nil || order.grace <= 0 || c.State != runtimepod.Running {
		return nil
	}
	hookCtx, cancel := context.WithCancel(ctx)
	h := &preStop{cancel: cancel, done: make(chan struct{})}
	w.n.spawn(func(context.Context) {
		defer close(h.done)
		defer cancel()
		err := w.n.runHook(hookCtx, hook.Call{Pod: pod, Container: spec, ID: c.ID, Host: order.host, Handler: spec.Lifecycle.PreStop})
		if err != nil && ctx.Err() == nil {
			// What the hook said stays out of the event: it may hold secrets.
			w.n.containerEvent(pod, spec, c.ID, v1.EventTypeWarning, eventFailedPreStop, "PreStopHook failed")
		}
	})
	return h
}

// stopContainer has a container stopped in a goroutine of its own, after its
// preStop hook, unless that is under way already and no later than asked for.
func (w *worker) stopContainer(ctx context.Context, pod *v1.Pod, c *runtimepod.Container, order stopOrder) {
	now := w.n.cfg.Clock.Now()
	hookBy, least := now.Add(order.grace), minGraceOf(pod)
	killBy := now.Add(max(order.grace, least))
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.begunStop(ctx, pod, c, order)
	if !s.killBy.IsZero() {
		if killBy.Add(time.Second).After(s.killBy) {
			return
		}
		s.cancelCall()
	}
	callCtx, cancel := context.WithCancel(ctx)
	s.calls++
	s.killBy, s.cancelCall = killBy, cancel
	call := s.calls
	w.n.spawn(func(context.Context) {
		defer cancel()
		w.awaitPreStop(callCtx, s.hook, hookBy)
		if callCtx.Err() != nil {
			return
		}
		left := max(hookBy.Sub(w.n.cfg.Clock.Now()), least)
		err := w.n.cfg.Runtime.StopContainer(callCtx, c.ID, int64(math.Ceil(left.Seconds())))
		w.stopped(callCtx, c.ID, call, err)
	})
}

// awaitPreStop waits for a hook, but not beyond the time that it has.
func (w *worker) awaitPreStop(ctx context.Context, h *preStop, by time.Time) {
	if h == nil {
		return
	}
	timer := w.n.cfg.Clock.NewTimer(by.Sub(w.n.cfg.Clock.Now()))
	defer timer.Stop()
	select {
	case <-h.done:
	case <-timer.C():
	case <-ctx.Done():
	}
}

// forgetStops drops the stops of containers that have ended, perhaps by
// themselves, with what their hooks are doing.
func (w *worker) forgetStops(rt *runtimepod.Pod) {
	alive := map[string]bool{}
	for _, c := range rt.Alive() {
		alive[c.ID] = true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, s := range w.stops {
		if !alive[id] {
			s.drop()
			delete(w.stops, id)
		}
	}
}

func (s *stop) drop() {
	s.cancelCall()
	if s.hook != nil {
		s.hook.cancel()
	}
}

func minGraceOf(pod *v1.Pod) time.Duration {
	if pod == nil {
		return orphanGrace
	}
	return minGrace
}

func (w *worker) tellKilling(pod *v1.Pod, c *runtimepod.Container, message string) {
	spec := findContainer(pod, c.Name)
	if spec == nil {
		return
	}
	if message == "" {
		message = "Stopping container " + c.Name
	}
	w.n.containerEvent(pod, spec, c.ID, v1.EventTypeNormal, eventKilling, message)
}

// stopped notes the end of a call to stop a container. One that failed is made
// again after a while.
func (w *worker) stopped(ctx context.Context, id string, call int, err error) {
	w.mu.Lock()
	s, pod := w.stops[id], w.pod
	current := s != nil && s.calls == call
	ended := err == nil || crierrors.IsNotFound(err)
	switch {
	case current && ended:
		s.drop()
		delete(w.stops, id)
	case current:
		s.killBy = time.Time{}
	}
	w.mu.Unlock()
	switch {
	case !current || errors.Is(ctx.Err(), context.Canceled) && !ended:
		return
	case ended:
		w.kick()
		return
	}
	klog.FromContext(ctx).Error(err, "Cannot stop a container; trying again", "containerID", id)
	if pod != nil {
		w.n.podEvent(pod, v1.EventTypeWarning, eventFailedKillPod, "error killing pod: %v", err)
	}
	w.n.cfg.Clock.AfterFunc(retryInitial, w.kick)
}
