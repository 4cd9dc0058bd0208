package probe

import (
	"context"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/pkg/probe"
)

// Pod is the probes of one pod. Its methods may be called concurrently.
type Pod struct {
	prober  *Prober
	changed func()

	mu         sync.Mutex
	pod        *v1.Pod
	containers map[string]*container // by ID
	counted    bool                  // there are metrics of it
}

// Pod returns the probes of a pod. changed is called, without blocking, when one
// of the answers of the methods below has become another.
func (p *Prober) Pod(changed func()) *Pod {
	return &Pod{prober: p, changed: changed}
}

// Watch says which containers of the pod run. Probes of those that are new begin;
// of those that are missing they end, with what they are doing. A pod that is
// ending is only asked for its readiness, which others rely on to the last.
//
// What stands in a Target counts when the container is seen for the first time.
func (p *Pod) Watch(pod *v1.Pod, ending bool, targets []Target) {
	now := p.prober.cfg.Clock.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pod = pod
	present := make(map[string]*container, len(targets))
	for _, t := range targets {
		c := p.containers[t.ID]
		if c == nil {
			c = newContainer(t)
			p.begin(c, now)
		}
		present[t.ID] = c
		if ending {
			c.stop(Startup, Liveness)
		}
	}
	for id, c := range p.containers {
		if present[id] == nil {
			c.stop(Startup, Liveness, Readiness)
		}
	}
	p.containers = present
	if ending && len(targets) == 0 && p.counted {
		p.prober.metrics.forget(pod)
		p.counted = false
	}
}

func (c *container) stop(list ...Kind) {
	for _, k := range list {
		if t := c.probes[k]; t != nil {
			t.stop()
		}
	}
}

// Started tells whether the container has passed its startup probe, or has none.
func (p *Pod) Started(id string) bool { return p.verdict(id, Startup) == Success }

// Ready tells whether the container's readiness probe holds, or it has none.
func (p *Pod) Ready(id string) bool { return p.verdict(id, Readiness) == Success }

// verdict of a container that isn't watched is Unknown.
func (p *Pod) verdict(id string, k Kind) Result {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.containers[id]; c != nil {
		return c.verdict(k)
	}
	return Unknown
}

// Unhealthy returns the probe that has failed for good, "liveness" or "startup",
// by the ID of the container.
func (p *Pod) Unhealthy() map[string]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var failed map[string]string
	for id, c := range p.containers {
		name := ""
		switch Failure {
		case c.verdict(Liveness):
			name = "liveness"
		case c.verdict(Startup):
			name = "startup"
		default:
			continue
		}
		if failed == nil {
			failed = map[string]string{}
		}
		failed[id] = name
	}
	return failed
}

// begin arms the probes that may run: until a container has started, only its
// startup probe. p.mu must be held.
func (p *Pod) begin(c *container, now time.Time) {
	if c.verdict(Startup) != Success {
		p.arm(c, c.probes[Startup], firstTurn(c.probes[Startup].spec, c.Target, Startup, now), now)
		return
	}
	for _, k := range []Kind{Liveness, Readiness} {
		if t := c.probes[k]; t != nil {
			p.arm(c, t, firstTurn(t.spec, c.Target, k, now), now)
		}
	}
}

// arm sets the timer for a probe's next turn. p.mu must be held.
func (p *Pod) arm(c *container, t *turn, at, now time.Time) {
	take := func() { p.prober.cfg.Spawn(func(ctx context.Context) { p.take(ctx, c, t) }) }
	if !at.After(now) {
		t.timer = nil
		take()
		return
	}
	t.timer = p.prober.cfg.Clock.AfterFunc(at.Sub(now), take)
}

// take takes a probe's turn.
func (p *Pod) take(ctx context.Context, c *container, t *turn) {
	began := p.prober.cfg.Clock.Now()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p.mu.Lock()
	if t.stopped {
		p.mu.Unlock()
		return
	}
	t.cancel = cancel
	target, pod := c.Target, p.pod
	p.mu.Unlock()

	result, output, err := p.prober.asker.ask(ctx, target, t.spec)
	if ctx.Err() != nil {
		return // the agent or the container is ending: this says nothing of it
	}
	if reason, message := event(t.kind, result, output, err); reason != "" {
		p.prober.cfg.Event(pod, target.Container, reason, message)
	}
	if p.count(c, t, began, result, err) {
		p.changed()
	}
}

// count takes a result into account, arms what is due next, and tells whether the
// verdict has changed. A probe that couldn't be carried out doesn't count.
func (p *Pod) count(c *container, t *turn, began time.Time, result probe.Result, err error) bool {
	now := p.prober.cfg.Clock.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	t.cancel = nil
	if t.stopped {
		return false
	}
	before := t.state.Verdict
	if err == nil {
		p.counted = true
		p.prober.metrics.count(p.pod, c.Container, t.kind, resultOf(result), now.Sub(began))
		t.state = t.state.Next(t.spec, resultOf(result))
	}
	switch {
	case !t.state.Settled(t.kind):
		p.arm(c, t, nextTurn(t.spec, began, now), now)
	case t.kind == Startup && t.state.Verdict == Success:
		c.Found = false // its turns are spread already
		p.begin(c, now)
	}
	return t.state.Verdict != before
}
