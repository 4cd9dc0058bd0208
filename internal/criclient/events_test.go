package criclient

import (
	"context"
	"sync"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	testingclock "k8s.io/utils/clock/testing"
)

func container(id string, state runtimeapi.ContainerState) *runtimeapi.Container {
	return &runtimeapi.Container{Id: id, PodSandboxId: "of-" + id, State: state, Labels: map[string]string{"pod": id}}
}

const (
	runs  = runtimeapi.ContainerState_CONTAINER_RUNNING
	ended = runtimeapi.ContainerState_CONTAINER_EXITED
)

// reader reads events.
type reader struct {
	*world
	t      *testing.T
	clock  *testingclock.FakeClock
	events chan *runtimeapi.ContainerEventResponse
	end    func()
}

// read subscribes until the test's end.
func read(t *testing.T, s *server) *reader {
	t.Helper()
	path := socket(t)
	s.driver = runtimeapi.CgroupDriver_CGROUPFS
	serve(t, path, s)
	clk := testingclock.NewFakeClock(time.Now())
	return (&reader{world: run(t, path, clk), t: t, clock: clk}).again()
}

// again is another reader of the same runtime.
func (r *reader) again() *reader {
	t := r.t
	t.Helper()
	r = &reader{world: r.world, t: t, clock: r.clock, events: make(chan *runtimeapi.ContainerEventResponse)}
	ctx, stop := context.WithCancel(context.Background())
	over, established := make(chan error, 1), make(chan struct{})
	go func() {
		over <- r.Runtime().GetContainerEvents(ctx, r.events, func(runtimeapi.RuntimeService_GetContainerEventsClient) { close(established) })
	}()
	r.end = sync.OnceFunc(func() {
		stop()
		receive(t, over, "the end of the subscription")
	})
	t.Cleanup(r.end)
	receive(t, established, "the subscription")
	return r
}

// step lets time pass once somebody waits for it.
func (r *reader) step(d time.Duration) {
	for !r.clock.HasWaiters() {
		time.Sleep(time.Millisecond) // a fake clock tells nobody
	}
	r.clock.Step(d)
}

func (r *reader) want(kind runtimeapi.ContainerEventType, id string) {
	r.t.Helper()
	e := receive(r.t, r.events, kind.String()+" of "+id)
	if e.GetContainerEventType() != kind || e.GetContainerId() != id {
		r.t.Fatalf("got %v, want %v of %s", e, kind, id)
	}
}

const (
	stoppedEvent = runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT
	deletedEvent = runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT
)

// A runtime without events is listed every second: each end is told once, and
// each going.
func TestWithoutEvents(t *testing.T) {
	s := &server{stream: func(runtimeapi.RuntimeService_GetContainerEventsServer) error { return nil }}
	s.set(container("a", runs), container("b", ended))
	r := read(t, s)
	r.step(relistPeriod)
	r.want(stoppedEvent, "b")
	s.set(container("a", ended), container("b", ended))
	r.step(relistPeriod)
	r.want(stoppedEvent, "a") // and b's not again
	s.set(container("a", ended))
	r.step(relistPeriod)
	r.want(deletedEvent, "b")
	s.set(container("a", ended), container("c", ended))
	r.step(relistPeriod)
	r.want(stoppedEvent, "c")
}

// Who reads only once there is something to read can do so from a runtime that is
// known to have no events, too, whatever has ended there already.
func TestWithoutEventsAgain(t *testing.T) {
	s := &server{stream: func(runtimeapi.RuntimeService_GetContainerEventsServer) error { return nil }}
	s.set(container("a", ended))
	first := read(t, s)
	first.step(relistPeriod)
	first.want(stoppedEvent, "a")
	first.end()
	again := first.again()
	again.step(relistPeriod)
	again.want(stoppedEvent, "a")
}

// What a stream doesn't tell before its first event is found by listing; with
// the first event, listing is done for.
func TestSilentStream(t *testing.T) {
	tell := make(chan string)
	s := &server{stream: func(stream runtimeapi.RuntimeService_GetContainerEventsServer) error {
		for {
			select {
			case id := <-tell:
				if err := stream.Send(&runtimeapi.ContainerEventResponse{ContainerId: id, ContainerEventType: stoppedEvent}); err != nil {
					return err
				}
			case <-stream.Context().Done():
				return nil
			}
		}
	}}
	r := read(t, s)
	s.set(container("missed", ended))
	r.step(relistPeriod)
	r.want(stoppedEvent, "missed")
	tell <- "told"
	r.want(stoppedEvent, "told")
	s.set(container("missed", ended), container("told", ended), container("also-missed", ended))
	r.step(relistPeriod) // the last that was set before the event
	r.want(stoppedEvent, "also-missed")
	s.set(container("late", ended))
	r.step(relistPeriod)
	tell <- "again"
	r.want(stoppedEvent, "again")
}
