package podserver

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

// resubscribeAfter is how long to wait after the runtime's events broke off.
const resubscribeAfter = time.Second

// endings tells those who follow logs when containers end. It listens to the
// runtime's events only while somebody does.
type endings struct {
	runtime Runtime
	clock   clock.Clock

	mu      sync.Mutex
	waiting map[string]map[chan struct{}]struct{} // by container
	stop    context.CancelFunc                    // nil: not listening
}

func newEndings(runtime Runtime, clock clock.Clock) *endings {
	return &endings{runtime: runtime, clock: clock, waiting: map[string]map[chan struct{}]struct{}{}}
}

// watch returns a channel that is closed when the container has ended, at once
// if it has already or is unknown. forget must be called when done.
func (e *endings) watch(ctx context.Context, id string) (ended <-chan struct{}, forget func()) {
	ch := make(chan struct{})
	e.mu.Lock()
	if e.waiting[id] == nil {
		e.waiting[id] = map[chan struct{}]struct{}{}
	}
	e.waiting[id][ch] = struct{}{}
	if e.stop == nil {
		var listening context.Context
		listening, e.stop = context.WithCancel(context.WithoutCancel(ctx))
		go e.listen(listening)
	}
	e.mu.Unlock()
	// Only now, since an event that came before ch was noted is not seen.
	e.recheck(ctx, id)
	return ch, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.waiting[id], ch)
		if len(e.waiting[id]) == 0 {
			delete(e.waiting, id)
		}
		if len(e.waiting) == 0 && e.stop != nil {
			e.stop()
			e.stop = nil
		}
	}
}

// tell closes the channels of all who wait for the container.
func (e *endings) tell(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for ch := range e.waiting[id] {
		close(ch)
		delete(e.waiting[id], ch)
	}
}

// recheck asks the runtime whether a container has ended. A runtime that's away
// doesn't end containers.
func (e *endings) recheck(ctx context.Context, id string) {
	resp, err := e.runtime.ContainerStatus(ctx, id, false)
	switch {
	case status.Code(err) == codes.NotFound:
		e.tell(id)
	case err == nil && resp.GetStatus().GetState() != runtimeapi.ContainerState_CONTAINER_RUNNING:
		e.tell(id)
	}
}

// recheckAll catches up on what happened while there were no events.
func (e *endings) recheckAll(ctx context.Context) {
	e.mu.Lock()
	ids := make([]string, 0, len(e.waiting))
	for id := range e.waiting {
		ids = append(ids, id)
	}
	e.mu.Unlock()
	for _, id := range ids {
		e.recheck(ctx, id)
	}
}

// listen passes events on until ctx ends, coming back when they break off.
func (e *endings) listen(ctx context.Context) {
	for ctx.Err() == nil {
		if err := e.stream(ctx); err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).V(2).Info("The runtime's events broke off", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-e.clock.After(resubscribeAfter):
		}
	}
}

func (e *endings) stream(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events := make(chan *runtimeapi.ContainerEventResponse, 16)
	var reader sync.WaitGroup
	reader.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case event := <-events:
				switch event.GetContainerEventType() {
				case runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT, runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT:
					e.tell(event.GetContainerId())
				}
			}
		}
	})
	err := e.runtime.GetContainerEvents(ctx, events, func(runtimeapi.RuntimeService_GetContainerEventsClient) {
		e.recheckAll(ctx)
	})
	cancel()
	reader.Wait()
	return err
}
