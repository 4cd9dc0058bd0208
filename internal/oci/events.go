package oci

import (
	"context"
	"errors"
	"fmt"

	"errand.dev/errand/internal/oci/shimapi"
)

// Events implements Runtime.
func (c *Client) Events(ctx context.Context) (<-chan Event, error) {
	l, err := c.open(ctx, shimapi.OpEvents, "", shimapi.Events{})
	if err != nil {
		return nil, err
	}
	ch := make(chan Event)
	go func() {
		err := c.follow(ctx, l, ch)
		c.mu.Lock()
		c.err = err
		c.mu.Unlock()
		close(ch)
	}()
	return ch, nil
}

// follow delivers exits until ctx ends or the shim is lost.
func (c *Client) follow(ctx context.Context, l *link, ch chan<- Event) error {
	instance := l.hello.Instance
	defer func() { l.Close() }()
	for after := uint64(0); ; {
		var w shimapi.Container
		_, err := l.next(&w)
		if err = explain(ctx, err); err == nil {
			if err = c.deliver(ctx, Event{status(w)}, ch); err == nil {
				after = w.Seq
				continue
			}
		}
		if !errors.Is(err, ErrParentLost) {
			return err
		}
		// The connection is broken. If it's the same shim that answers, we go on where we were.
		l.Close()
		next, derr := c.dial(ctx)
		if derr != nil {
			return explain(ctx, err)
		}
		l = next
		if derr = l.begin(shimapi.OpEvents, shimapi.Events{After: after}); derr != nil || l.hello.Instance != instance {
			return explain(ctx, fmt.Errorf("%w: another one has taken its place", ErrParentLost))
		}
	}
}

// deliver waits for the container's Run, if that hasn't returned yet, and the receiver.
func (c *Client) deliver(ctx context.Context, e Event, ch chan<- Event) error {
	c.mu.Lock()
	running := c.inFlight[e.ID]
	c.mu.Unlock()
	if running != nil {
		select {
		case <-running:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	select {
	case ch <- e:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
