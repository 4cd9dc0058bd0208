package node

import (
	"context"

	v1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	"errand.dev/errand/internal/node/hook"
	"errand.dev/errand/internal/node/podstatus"
	"errand.dev/errand/internal/node/runtimepod"
)

// reasonPostStart is why a container waits whose postStart hook failed.
const reasonPostStart = "PostStartHookError"

// greeting is the postStart hook of a run of a container. Its end wakes the worker.
type greeting struct {
	cancel context.CancelFunc
	done   chan struct{} // closed once err stands
	err    error
}

// over tells whether the hook has ended.
func (g *greeting) over() bool {
	select {
	case <-g.done:
		return true
	default:
		return false
	}
}

func (g *greeting) succeeded() bool { return g.over() && g.err == nil }
func (g *greeting) failed() bool    { return g.over() && g.err != nil }

// greet has the postStart hooks carried out, beside the worker, of containers
// that run and whose hook hasn't been.
//
// A run is shown in the pod's status only after its hook has succeeded. One that
// isn't shown, as after a crash of the agent, may not have had it: the hook is
// then carried out again, as the API allows.
func (w *worker) greet(ctx context.Context, pod *v1.Pod, rt *runtimepod.Pod) {
	running := map[string]bool{}
	for _, c := range rt.Containers {
		spec := findContainer(pod, c.Name)
		if c.State != runtimepod.Running || spec == nil || !hasPostStart(spec) {
			continue
		}
		running[c.ID] = true
		if w.greets[c.ID] == nil && w.shown(pod, c) == nil {
			w.startGreeting(ctx, pod, spec, hook.Call{
				Pod: pod, Container: spec, ID: c.ID, Host: w.n.address(pod, rt), Handler: spec.Lifecycle.PostStart,
			})
		}
	}
	for id, g := range w.greets {
		if !running[id] {
			g.cancel()
			delete(w.greets, id)
		}
	}
}

func (w *worker) startGreeting(ctx context.Context, pod *v1.Pod, c *v1.Container, call hook.Call) {
	ctx, cancel := context.WithCancel(ctx)
	g := &greeting{cancel: cancel, done: make(chan struct{})}
	w.greets[call.ID] = g
	w.n.spawn(func(context.Context) {
		defer cancel()
		g.err = w.n.runHook(ctx, call)
		if g.err != nil && ctx.Err() == nil {
			// What the hook said stays out of the event: it may hold secrets.
			w.n.containerEvent(pod, c, call.ID, v1.EventTypeWarning, eventFailedPostStart, "PostStartHook failed")
		}
		close(g.done)
		w.kick()
	})
}

// runHook carries out a hook.
func (n *Node) runHook(ctx context.Context, call hook.Call) error {
	fellBack, err := n.hooks.Run(ctx, call)
	switch {
	case err != nil && ctx.Err() == nil:
		klog.FromContext(ctx).V(1).Info("Lifecycle hook failed", "err", err)
	case fellBack != "":
		n.podEvent(call.Pod, v1.EventTypeWarning, eventHookFallback,
			"request to HTTPS lifecycle hook %s got HTTP response, retry with HTTP succeeded", fellBack)
	}
	return err
}

// greeted returns, by container ID, which running containers still have their
// postStart hook before them, and which have failed it.
func (w *worker) greeted(rt *runtimepod.Pod) (pending, failed map[string]bool) {
	for _, c := range rt.Containers {
		g := w.greets[c.ID]
		switch {
		case g == nil || g.succeeded():
		case g.failed():
			failed = with(failed, c.ID)
			w.waiting[c.Name] = podstatus.Waiting{Reason: reasonPostStart, Message: g.err.Error()}
		default:
			pending = with(pending, c.ID)
		}
	}
	return pending, failed
}

func with(set map[string]bool, id string) map[string]bool {
	if set == nil {
		set = map[string]bool{}
	}
	set[id] = true
	return set
}

// ungreeted tells whether the run is not to be shown, because its postStart hook
// hasn't succeeded.
func (w *worker) ungreeted(c *runtimepod.Container) bool {
	g := w.greets[c.ID]
	return g != nil && !g.succeeded()
}

// cancelGreetings ends the hooks of a pod that is ending.
func (w *worker) cancelGreetings() {
	for _, g := range w.greets {
		g.cancel()
	}
	clear(w.greets)
}
