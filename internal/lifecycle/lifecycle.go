// Package lifecycle starts the parts of a process in order and stops them in
// reverse. It knows nothing of what they do.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/klog/v2"
)

// A Group is a stack of running components: each may lean on those started
// before it, so it is stopped before them. A Group is used by one goroutine.
type Group struct {
	stopTimeout time.Duration
	components  []*component
	failed      chan error
}

type component struct {
	name   string
	cancel context.CancelFunc
	done   chan struct{}
}

// NewGroup makes an empty Group. A component that has not ended stopTimeout
// after it was told to is named in the error of Stop and left behind.
func NewGroup(stopTimeout time.Duration) *Group {
	return &Group{stopTimeout: stopTimeout, failed: make(chan error, 1)}
}

// Start runs a component in the background. Its context carries ctx's values,
// but ends only when the Group stops the component: a component must outlive
// the signal that stops those above it. A component that returns before it is
// stopped, with an error or without, has failed.
func (g *Group) Start(ctx context.Context, name string, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c := &component{name: name, cancel: cancel, done: make(chan struct{})}
	g.components = append(g.components, c)
	go func() {
		defer close(c.done)
		err := run(ctx)
		if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
			return
		}
		if err == nil {
			err = errors.New("ended by itself")
		}
		select {
		case g.failed <- fmt.Errorf("%s: %w", name, err):
		default: // an earlier failure is the cause, this one its consequence
			klog.FromContext(ctx).V(2).Info("component failed as well", "component", name, "err", err)
		}
	}()
}

// Await waits until ready is closed, a component fails or ctx ends; it
// returns nil only for the first.
func (g *Group) Await(ctx context.Context, ready <-chan struct{}) error {
	select {
	case <-ready:
		return nil
	case err := <-g.failed:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Wait blocks until ctx ends, returning nil, or a component fails, returning
// its error.
func (g *Group) Wait(ctx context.Context) error {
	select {
	case err := <-g.failed:
		return err
	case <-ctx.Done():
		return nil
	}
}

// Stop stops all components, the last started first, each only after the one
// above it has ended.
func (g *Group) Stop() error {
	var errs []error
	for i := len(g.components) - 1; i >= 0; i-- {
		c := g.components[i]
		c.cancel()
		timer := time.NewTimer(g.stopTimeout)
		select {
		case <-c.done:
			timer.Stop()
		case <-timer.C:
			errs = append(errs, fmt.Errorf("%s did not end within %s", c.name, g.stopTimeout))
		}
	}
	g.components = nil
	select {
	case err := <-g.failed:
		errs = append(errs, err)
	default:
	}
	return errors.Join(errs...)
}
