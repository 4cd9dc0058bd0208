package fakecri

import (
	"context"
	"errors"
	"sync"

	"google.golang.org/protobuf/proto"
	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ErrDead is what every call of a dead client returns.
var ErrDead = errors.New("the agent of this client is dead")

// Client is one agent's connection to the runtime. Methods that it doesn't
// implement panic.
type Client struct {
	internalapi.RuntimeService
	runtime *Runtime

	mu     sync.Mutex
	calls  []string
	budget int // writes left before death; < 0: immortal
	died   chan struct{}
	cut    chan struct{} // closed to end the present stream of events
}

// Connect returns a client that lives until it is killed.
func (r *Runtime) Connect() *Client {
	return &Client{runtime: r, budget: -1, died: make(chan struct{}), cut: make(chan struct{})}
}

// DieAfter makes the client die as soon as n more calls that change something
// have had their effect: the last one's answer is lost with it.
func (c *Client) DieAfter(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.budget = n
}

// CutEvents ends the streams of events that this client has.
func (c *Client) CutEvents() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.cut)
	c.cut = make(chan struct{})
}

// Died is closed when the client dies.
func (c *Client) Died() <-chan struct{} { return c.died }

// Kill makes all calls fail from now on.
func (c *Client) Kill() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kill()
}

func (c *Client) kill() {
	if !c.dead() {
		close(c.died)
	}
}

func (c *Client) dead() bool {
	select {
	case <-c.died:
		return true
	default:
		return false
	}
}

// Calls returns the methods called that change something, in order.
func (c *Client) Calls() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.calls...)
}

func changes(method string) bool {
	switch method {
	case "RunPodSandbox", "StopPodSandbox", "RemovePodSandbox",
		"CreateContainer", "StartContainer", "StopContainer", "RemoveContainer",
		"UpdateContainerResources", "UpdatePodSandboxResources":
		return true
	}
	return false
}

// Act lets another call of the agent's, say to the API, take part in its life: it
// counts as one that changes something and fails if the client is dead.
func (c *Client) Act(method string, call func() error) error {
	last, err := c.begin(method, true)
	if err != nil {
		return err
	}
	err = call()
	return c.end(last, err)
}

// do carries out a call of the runtime, unless the client is dead or the call made
// to fail.
func (c *Client) do(method string, call func(*Runtime) error) error {
	last, err := c.begin(method, changes(method))
	if err != nil {
		return err
	}
	r := c.runtime
	r.mu.Lock()
	if err = r.fail[method]; err == nil {
		err = call(r)
	}
	r.mu.Unlock()
	return c.end(last, err)
}

func (c *Client) begin(method string, change bool) (last bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead() {
		return false, ErrDead
	}
	if change {
		c.calls = append(c.calls, method)
		if c.budget > 0 {
			c.budget--
			last = c.budget == 0
		}
	}
	return last, nil
}

func (c *Client) end(last bool, err error) error {
	if last {
		c.Kill()
		return ErrDead
	}
	return err
}

// Version implements the CRI.
func (c *Client) Version(context.Context, string) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{RuntimeName: Name, RuntimeVersion: "1", RuntimeApiVersion: "v1"}, nil
}

// Status implements the CRI: always ready.
func (c *Client) Status(context.Context, bool) (*runtimeapi.StatusResponse, error) {
	return &runtimeapi.StatusResponse{Status: &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
		{Type: runtimeapi.RuntimeReady, Status: true}, {Type: runtimeapi.NetworkReady, Status: true},
	}}}, nil
}

type subscriber struct {
	mu     sync.Mutex
	queue  []*runtimeapi.ContainerEventResponse
	notify chan struct{}
}

// tell queues an event for all subscribers. r.mu must be held.
func (r *Runtime) tell(id string, kind runtimeapi.ContainerEventType) {
	c := r.containers[id]
	event := &runtimeapi.ContainerEventResponse{
		ContainerId:        id,
		ContainerEventType: kind,
		CreatedAt:          r.Clock.Now().UnixNano(),
	}
	if s := r.sandboxes[c.sandbox]; s != nil {
		event.PodSandboxStatus = proto.Clone(s.status).(*runtimeapi.PodSandboxStatus)
	}
	for s := range r.subscribers {
		s.mu.Lock()
		s.queue = append(s.queue, event)
		s.mu.Unlock()
		select {
		case s.notify <- struct{}{}:
		default:
		}
	}
}

// GetContainerEvents implements the CRI: it delivers events until ctx ends or
// the client dies.
func (c *Client) GetContainerEvents(ctx context.Context, events chan *runtimeapi.ContainerEventResponse, established func(runtimeapi.RuntimeService_GetContainerEventsClient)) error {
	s := &subscriber{notify: make(chan struct{}, 1)}
	c.runtime.mu.Lock()
	c.runtime.subscribers[s] = struct{}{}
	c.runtime.mu.Unlock()
	defer func() {
		c.runtime.mu.Lock()
		delete(c.runtime.subscribers, s)
		c.runtime.mu.Unlock()
	}()
	c.mu.Lock()
	cut := c.cut
	c.mu.Unlock()
	if established != nil {
		established(nil)
	}
	for {
		select {
		case <-cut:
			return errors.New("the stream of events was cut off")
		case <-ctx.Done():
			return ctx.Err()
		case <-c.died:
			return ErrDead
		case <-s.notify:
		}
		s.mu.Lock()
		queue := s.queue
		s.queue = nil
		s.mu.Unlock()
		for _, e := range queue {
			select {
			case events <- e:
			case <-ctx.Done():
				return ctx.Err()
			case <-c.died:
				return ErrDead
			}
		}
	}
}
