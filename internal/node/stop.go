package node

import (
	"context"
	"errors"
	"math"
	"time"

	v1 "k8s.io/api/core/v1"
	crierrors "k8s.io/cri-api/pkg/errors"
	"k8s.io/klog/v2"

	"errand.dev/errand/internal/node/runtimepod"
)

// stopOrder says how a container is to be stopped.
type stopOrder struct {
	grace   time.Duration
	message string // for the Killing event; "": the usual one
}

// stop is a container that has been told to stop.
type stop struct {
	killBy time.Time
	cancel context.CancelFunc
}

// stopContainer has a container stopped in a goroutine of its own, unless that
// is under way already and no later than asked for.
func (w *worker) stopContainer(ctx context.Context, pod *v1.Pod, c *runtimepod.Container, order stopOrder) {
	seconds := int64(math.Ceil(max(order.grace, minGraceOf(pod)).Seconds()))
	killBy := w.n.cfg.Clock.Now().Add(time.Duration(seconds) * time.Second)
	w.mu.Lock()
	defer w.mu.Unlock()
	previous := w.stops[c.ID]
	if previous != nil {
		if killBy.Add(time.Second).After(previous.killBy) {
			return
		}
		previous.cancel()
	} else {
		w.tellKilling(pod, c, order.message)
	}
	stopCtx, cancel := context.WithCancel(ctx)
	s := &stop{killBy: killBy, cancel: cancel}
	w.stops[c.ID] = s
	w.n.spawn(func(context.Context) {
		defer cancel()
		err := w.n.cfg.Runtime.StopContainer(stopCtx, c.ID, seconds)
		w.stopped(stopCtx, c.ID, s, err)
	})
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

// stopped notes the end of a stop. One that failed is tried again after a while.
func (w *worker) stopped(ctx context.Context, id string, s *stop, err error) {
	w.mu.Lock()
	current := w.stops[id] == s
	if current {
		delete(w.stops, id)
	}
	pod := w.pod
	w.mu.Unlock()
	switch {
	case !current || errors.Is(ctx.Err(), context.Canceled):
		return
	case err == nil || crierrors.IsNotFound(err):
		w.kick()
		return
	}
	klog.FromContext(ctx).Error(err, "Cannot stop a container; trying again", "containerID", id)
	if pod != nil {
		w.n.podEvent(pod, v1.EventTypeWarning, eventFailedKillPod, "error killing pod: %v", err)
	}
	w.n.cfg.Clock.AfterFunc(retryInitial, w.kick)
}
