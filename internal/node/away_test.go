package node

import (
	"context"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// away is a runtime that isn't there until it comes.
type away struct {
	internalapi.RuntimeService
	asked, comes chan struct{}
}

func (r *away) there() error {
	select {
	case <-r.comes:
		return nil
	default:
		return status.Error(codes.Unavailable, "the runtime is away")
	}
}

func (r *away) Version(ctx context.Context, version string) (*runtimeapi.VersionResponse, error) {
	if err := r.there(); err != nil {
		r.asked <- struct{}{}
		return nil, err
	}
	return r.RuntimeService.Version(ctx, version)
}

func (r *away) GetContainerEvents(ctx context.Context, events chan *runtimeapi.ContainerEventResponse, established func(runtimeapi.RuntimeService_GetContainerEventsClient)) error {
	select {
	case <-r.comes:
		return r.RuntimeService.GetContainerEvents(ctx, events, established)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// An agent whose runtime is away when it starts waits for it, and no clock has to
// move for it to go on.
func TestRuntimeComesLater(t *testing.T) {
	w := newWorld(t)
	w.runtime.Behave = exits(0)
	pod := makePod("waits").obj()
	w.api.create(pod)
	r := &away{asked: make(chan struct{}, 1), comes: make(chan struct{})}
	a := w.start(func(a *agent) {
		r.RuntimeService = a.cri
		a.cri = r
	})
	<-r.asked
	select {
	case <-a.node.Ready():
		t.Error("it is ready without a runtime")
	default:
	}
	close(r.comes)
	w.waitPhase(pod, v1.PodSucceeded)
	<-a.node.Ready()
	if n := w.runtime.Starts("uid-waits", "main"); n != 1 {
		t.Errorf("started %d times", n)
	}
}
