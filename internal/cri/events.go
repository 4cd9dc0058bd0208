package cri

import (
	"context"
	"slices"
	"sync"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// maxQueued is how many events wait for a slow reader before they are thinned
// out to the last one of each container.
const maxQueued = 4096

// event is one that waits to be delivered. The statuses that go with it are
// taken when it is: they are never older than it.
type event struct {
	kind        runtimeapi.ContainerEventType
	id, sandbox string
	at          time.Time
}

// hub hands events to readers. Telling never waits for a reader: each has a
// queue. A queue that grows too long loses, of each container, all events but
// the last: the reader misses steps on the way, never where it ended.
type hub struct {
	describe func(sandboxID string) (*runtimeapi.PodSandboxStatus, []*runtimeapi.ContainerStatus)

	mu      sync.Mutex
	readers map[*eventQueue]struct{}
}

func newHub(describe func(string) (*runtimeapi.PodSandboxStatus, []*runtimeapi.ContainerStatus)) *hub {
	return &hub{describe: describe, readers: map[*eventQueue]struct{}{}}
}

type eventQueue struct {
	mu     sync.Mutex
	events []event
	limit  int
	more   chan struct{} // holds a token while there may be events
}

func (q *eventQueue) push(e event) {
	q.mu.Lock()
	q.events = append(q.events, e)
	if len(q.events) > q.limit {
		q.events = lastOfEach(q.events)
		// With more containers than fit, thinning must not start over at
		// every event.
		q.limit = max(maxQueued, 2*len(q.events))
	}
	q.mu.Unlock()
	select {
	case q.more <- struct{}{}:
	default:
	}
}

func (q *eventQueue) take() []event {
	q.mu.Lock()
	defer q.mu.Unlock()
	events := q.events
	q.events = nil
	return events
}

// lastOfEach keeps the last event of each container, in order.
func lastOfEach(events []event) []event {
	seen := map[string]bool{}
	var kept []event
	for _, e := range slices.Backward(events) {
		if !seen[e.id] {
			seen[e.id] = true
			kept = append(kept, e)
		}
	}
	slices.Reverse(kept)
	return kept
}

func (h *hub) tell(kind runtimeapi.ContainerEventType, id, sandboxID string, at time.Time) {
	e := event{kind: kind, id: id, sandbox: sandboxID, at: at}
	h.mu.Lock()
	defer h.mu.Unlock()
	for q := range h.readers {
		q.push(e)
	}
}

func (h *hub) subscribe() (*eventQueue, func()) {
	q := &eventQueue{limit: maxQueued, more: make(chan struct{}, 1)}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.readers[q] = struct{}{}
	return q, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.readers, q)
	}
}

// GetContainerEvents delivers events until ctx ends, whose error it returns.
// established, if set, is called with nil once no event can be missed any more.
// A reader may be as slow as it likes: it holds nobody up and misses no
// container's last event.
func (s *Service) GetContainerEvents(ctx context.Context, events chan *runtimeapi.ContainerEventResponse, established func(runtimeapi.RuntimeService_GetContainerEventsClient)) error {
	q, leave := s.events.subscribe()
	defer leave()
	if established != nil {
		established(nil)
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-q.more:
		}
		for _, e := range q.take() {
			select {
			case events <- s.events.response(e):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

func (h *hub) response(e event) *runtimeapi.ContainerEventResponse {
	sandbox, containers := h.describe(e.sandbox)
	return &runtimeapi.ContainerEventResponse{
		ContainerId: e.id, ContainerEventType: e.kind, CreatedAt: e.at.UnixNano(),
		PodSandboxStatus: sandbox, ContainersStatuses: containers,
	}
}
