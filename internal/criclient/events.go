package criclient

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
)

// The kubelet's periods of listing all containers: without events of the
// runtime's (KEP-3386), and with, should one have been missed.
const (
	relistPeriod        = time.Second
	relistPeriodEvented = 5 * time.Minute
)

// GetContainerEvents implements internalapi.RuntimeService. It waits for the
// runtime, and ends with it. established, if set, is called with nil before
// anything can be missed.
//
// A stream of the runtime's that was asked for is not yet one that it serves: what
// happens in between may go untold, and a runtime may never tell anything. So
// all containers are listed every second, up to the first event.
func (s runtimeService) GetContainerEvents(ctx context.Context, events chan *runtimeapi.ContainerEventResponse, established func(runtimeapi.RuntimeService_GetContainerEventsClient)) error {
	l, err := s.await(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w := &watch{service: s, link: l, out: events, known: map[string]bool{}}
	stream := make(chan *runtimeapi.ContainerEventResponse)
	broken := make(chan error, 1)
	if !s.isSilent(l) {
		go func() {
			defer close(stream)
			broken <- l.runtime.GetContainerEvents(quiet(ctx), stream, nil)
		}()
		defer func() {
			cancel()
			for range stream { // the CRI's client waits for whoever takes its last one
			}
		}()
	}
	if established != nil {
		established(nil)
	}
	return w.run(ctx, stream, broken)
}

// watch is one reader of events.
type watch struct {
	service runtimeService
	link    *link
	out     chan<- *runtimeapi.ContainerEventResponse
	// known are the containers and sandboxes, and whether the reader has been told
	// that they have ended.
	known map[string]bool
}

func (w *watch) run(ctx context.Context, stream <-chan *runtimeapi.ContainerEventResponse, broken <-chan error) error {
	period := relistPeriod
	timer := w.service.cfg.Clock.NewTimer(period)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.link.gone:
			return w.service.Err()
		case e, ok := <-stream:
			if !ok {
				stream = nil
				continue
			}
			if err := w.pass(ctx, e); err != nil {
				return err
			}
			period = relistPeriodEvented
		case err := <-broken:
			if period == relistPeriodEvented || !isSilence(err) {
				return err
			}
			w.service.silence(ctx, w.link)
		case <-timer.C():
			if err := w.relist(ctx); err != nil {
				return err
			}
			timer.Reset(period)
		}
	}
}

// isSilence tells whether a stream that has ended was that of a runtime without
// events: CRI-O, unless configured with enable_pod_events, ends it at once.
func isSilence(err error) bool {
	return errors.Is(err, io.EOF) || status.Code(err) == codes.Unimplemented
}

func (c *Client) isSilent(l *link) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return l.silent
}

func (c *Client) silence(ctx context.Context, l *link) {
	c.mu.Lock()
	l.silent = true
	c.mu.Unlock()
	c.tellOnce.Do(func() {
		klog.FromContext(ctx).Info("The container runtime tells of no events: its containers are listed every second instead. In CRI-O, enable_pod_events turns them on", "endpoint", c.cfg.Endpoint)
	})
}

// pass hands an event to the reader.
func (w *watch) pass(ctx context.Context, e *runtimeapi.ContainerEventResponse) error {
	switch e.GetContainerEventType() {
	case runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT:
		w.known[e.GetContainerId()] = true
	case runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT:
		delete(w.known, e.GetContainerId())
	}
	select {
	case w.out <- e:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// relist tells of each end that the reader hasn't been told of.
func (w *watch) relist(ctx context.Context) error {
	containers, err := w.service.ListContainers(ctx, nil)
	if err != nil {
		return err
	}
	sandboxes, err := w.service.ListPodSandbox(ctx, nil)
	if err != nil {
		return err
	}
	there := make(map[string]bool, len(containers)+len(sandboxes))
	see := func(id string, ended bool, sandbox *runtimeapi.PodSandboxStatus) error {
		there[id] = true
		told := w.known[id]
		w.known[id] = told
		if told || !ended {
			return nil
		}
		return w.pass(ctx, w.event(runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT, id, sandbox))
	}
	for _, c := range containers {
		sandbox := &runtimeapi.PodSandboxStatus{Id: c.GetPodSandboxId(), Labels: c.GetLabels()}
		if err := see(c.GetId(), c.GetState() == runtimeapi.ContainerState_CONTAINER_EXITED, sandbox); err != nil {
			return err
		}
	}
	for _, s := range sandboxes {
		sandbox := &runtimeapi.PodSandboxStatus{Id: s.GetId(), Metadata: s.GetMetadata(), State: s.GetState(), Labels: s.GetLabels()}
		if err := see(s.GetId(), s.GetState() == runtimeapi.PodSandboxState_SANDBOX_NOTREADY, sandbox); err != nil {
			return err
		}
	}
	for id := range w.known {
		if there[id] {
			continue
		}
		if err := w.pass(ctx, w.event(runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT, id, nil)); err != nil {
			return err
		}
	}
	return nil
}

func (w *watch) event(kind runtimeapi.ContainerEventType, id string, sandbox *runtimeapi.PodSandboxStatus) *runtimeapi.ContainerEventResponse {
	return &runtimeapi.ContainerEventResponse{
		ContainerId: id, ContainerEventType: kind, CreatedAt: w.service.cfg.Clock.Now().UnixNano(), PodSandboxStatus: sandbox,
	}
}
