package node

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"errand.dev/errand/internal/node/runtimepod"
)

// away is a runtime that isn't there until it comes. As one that is only just
// starting, it fails a first call then.
type away struct {
	internalapi.RuntimeService
	asked, comes chan struct{}
	failed       atomic.Bool
}

func (r *away) Version(ctx context.Context, version string) (*runtimeapi.VersionResponse, error) {
	if !r.failed.Swap(true) {
		return nil, status.Error(codes.Unavailable, "the runtime has gone again")
	}
	return r.RuntimeService.Version(ctx, version)
}

func (r *away) GetContainerEvents(ctx context.Context, events chan *runtimeapi.ContainerEventResponse, established func(runtimeapi.RuntimeService_GetContainerEventsClient)) error {
	select {
	case r.asked <- struct{}{}:
	default:
	}
	select {
	case <-r.comes:
		return r.RuntimeService.GetContainerEvents(ctx, events, established)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// An agent whose runtime is away when it starts waits for it, also if it goes once
// more.
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
	for !w.clock.HasWaiters() {
		time.Sleep(time.Millisecond) // a fake clock tells nobody
	}
	w.clock.Step(retryMax)
	w.waitPhase(pod, v1.PodSucceeded)
	<-a.node.Ready()
	if n := w.runtime.Starts("uid-waits", "main"); n != 1 {
		t.Errorf("started %d times", n)
	}
}

// broken is a runtime whose events can be cut off.
type broken struct {
	internalapi.RuntimeService
	cut chan struct{}
}

func (r *broken) GetContainerEvents(ctx context.Context, events chan *runtimeapi.ContainerEventResponse, established func(runtimeapi.RuntimeService_GetContainerEventsClient)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-r.cut:
			cancel()
		case <-ctx.Done():
		}
	}()
	return r.RuntimeService.GetContainerEvents(ctx, events, established)
}

// A runtime that was away may have come back with sandboxes that it had given up,
// and that it tells nobody of: they are ended as an agent's start ends them.
func TestRuntimeComesBackWithMore(t *testing.T) {
	w := newWorld(t)
	r := &broken{cut: make(chan struct{})}
	a := w.start(func(a *agent) {
		r.RuntimeService = a.cri
		a.cri = r
	})
	<-a.node.Ready()
	given := makePod("given-up").obj()
	_, err := w.runtime.Connect().RunPodSandbox(t.Context(), &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: given.Name, Namespace: given.Namespace, Uid: string(given.UID)},
		Labels:   runtimepod.PodLabels(given),
	}, "")
	if err != nil {
		t.Fatal(err)
	}
	r.cut <- struct{}{}
	for deadline := time.Now().Add(patience); ; {
		if all, _ := w.runtime.Sandboxes(); all == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the sandbox is still there")
		}
		w.clock.Step(resubscribe)
		time.Sleep(time.Millisecond) // a fake clock tells nobody
	}
}
