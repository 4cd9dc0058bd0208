package cri

import (
	"context"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	clocktesting "k8s.io/utils/clock/testing"

	"errand.dev/errand/internal/oci"
)

// slowExec is a runtime on a busy machine: starting a command takes half a minute
// of the clock's.
type slowExec struct {
	oci.Runtime
	clock *clocktesting.FakeClock
	hangs bool
}

func (r slowExec) Exec(context.Context, string, oci.ExecRequest) (oci.Process, error) {
	r.clock.Step(30 * time.Second)
	return execProcess{hangs: r.hangs, waits: func() { r.clock.Step(time.Second) }}, nil
}

type execProcess struct {
	oci.Process
	hangs bool
	waits func()
}

func (p execProcess) Wait(ctx context.Context) (int, error) {
	if p.hangs {
		p.waits()
		<-ctx.Done()
		return 0, ctx.Err()
	}
	return 0, nil
}

func (execProcess) Signal(context.Context, syscall.Signal) error { return nil }
func (execProcess) Close() error                                 { return nil }

// A command's timeout is about what it takes itself, not what starting it takes.
func TestExecTimeoutCountsFromTheStart(t *testing.T) {
	w := newWorld(t)
	_, id := makeRunning(w)
	clk := clocktesting.NewFakeClock(time.Now())
	for _, hangs := range []bool{false, true} {
		cfg := w.life(0).config()
		cfg.Clock, cfg.Runtime = clk, slowExec{Runtime: cfg.Runtime, clock: clk, hangs: hangs}
		s, err := New(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = s.ExecSync(t.Context(), id, []string{"x"}, time.Second)
		if want := map[bool]codes.Code{false: codes.OK, true: codes.DeadlineExceeded}[hangs]; status.Code(err) != want {
			t.Errorf("hangs: %v: %v", hangs, err)
		}
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}
