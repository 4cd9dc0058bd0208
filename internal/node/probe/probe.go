package probe

import (
	"context"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/pkg/probe"
	"k8s.io/utils/clock"
)

// The kubelet's event reasons.
const (
	eventUnhealthy = "Unhealthy"
	eventWarning   = "ProbeWarning"
)

// Config is what probes need of their node. All fields are required.
type Config struct {
	Clock clock.WithDelayedExecution
	Exec  Exec
	// Spawn runs f in a goroutine, with a context that ends when the node stops;
	// false if it has stopped.
	Spawn func(f func(ctx context.Context)) bool
	// Event records a warning about a container of a pod.
	Event func(pod *v1.Pod, c *v1.Container, reason, message string)
}

// Prober makes the probes of pods.
type Prober struct {
	cfg     Config
	asker   *asker
	metrics *proberMetrics
}

// New returns a Prober.
func New(cfg Config) *Prober {
	return &Prober{cfg: cfg, asker: newAsker(cfg.Exec), metrics: newMetrics()}
}

// Target is a running container.
type Target struct {
	// ID is the CRI's for this run of the container.
	ID        string
	Container *v1.Container
	StartedAt time.Time
	// Host is the address that network probes go to unless they name one.
	Host string
	// Found tells that the container ran before the agent did. Started and Ready
	// are then what was reported of it, which holds until there are other results:
	// a restart of the agent is no reason to doubt a container.
	Found          bool
	Started, Ready bool
}

// container is a run of a container with its probes.
type container struct {
	Target
	probes [kinds]*turn
}

// turn is one probe of one run of a container. The Pod's mutex guards it.
type turn struct {
	kind    Kind
	spec    *v1.Probe
	state   State
	timer   clock.Timer        // to the next turn
	cancel  context.CancelFunc // of the turn under way
	stopped bool               // for good
}

func newContainer(t Target) *container {
	c := &container{Target: t}
	for k := range kinds {
		if spec := k.specOf(t.Container); spec != nil {
			c.probes[k] = &turn{kind: k, spec: spec, state: Initial(k)}
		}
	}
	if p := c.probes[Startup]; p != nil && t.Started {
		p.state.Verdict = Success
	}
	if p := c.probes[Readiness]; p != nil && t.Ready {
		p.state.Verdict = Success
	}
	return c
}

// verdict is what holds for a kind; Success for one that the container hasn't.
func (c *container) verdict(k Kind) Result {
	if p := c.probes[k]; p != nil {
		return p.state.Verdict
	}
	return Success
}

func (t *turn) stop() {
	t.stopped = true
	if t.timer != nil {
		t.timer.Stop()
	}
	if t.cancel != nil {
		t.cancel()
	}
}

// event is what users are told of a probe's result; no reason means nothing.
func event(k Kind, result probe.Result, output string, err error) (reason, message string) {
	switch {
	case err != nil:
		return eventUnhealthy, k.String() + " probe errored and resulted in " + string(result) + " state: " + err.Error()
	case result == probe.Failure:
		return eventUnhealthy, k.String() + " probe failed: " + output
	case result == probe.Warning:
		return eventWarning, k.String() + " probe warning: " + output
	}
	return "", ""
}

// resultOf is what a carried out probe counts as.
func resultOf(r probe.Result) Result {
	if r == probe.Success || r == probe.Warning {
		return Success
	}
	return Failure
}
