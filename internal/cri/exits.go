package cri

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"errand.dev/errand/internal/cri/metadata"
	"errand.dev/errand/internal/oci"
)

// Reasons for a container's end, as kubectl shows them.
const (
	reasonCompleted = "Completed"
	reasonError     = "Error"
	reasonOOMKilled = "OOMKilled"
	reasonUnknown   = "ContainerStatusUnknown"
)

const (
	lostMessage   = "errand-shim, the containers' parent process, was killed, and this container with it"
	rebootMessage = "The container was lost when the machine restarted"
	goneMessage   = "The container's process was gone when errand looked for it, and nobody saw how it ended"
)

// How long Run waits before it starts the containers' parent again.
const (
	followRetryFirst = 100 * time.Millisecond
	followRetryLast  = 10 * time.Second
)

// runFailure is why the containers' parent can't be reached, if it can't.
type runFailure struct {
	mu  sync.Mutex
	err error
}

func (f *runFailure) set(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *runFailure) get() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// Run notices containers' ends until ctx ends. When the parent of the
// containers dies it starts another, and the containers' ends become failures
// with exit code 137 that say so.
func (s *Service) Run(ctx context.Context) error {
	logger := klog.FromContext(ctx)
	for delay := followRetryFirst; ; {
		ends, err := s.cfg.Runtime.Events(ctx)
		if err == nil {
			err = s.settle(ctx)
		}
		s.failure.set(err)
		if err == nil {
			delay = followRetryFirst
			for e := range ends {
				s.ended(ctx, e.Status)
			}
			err = s.cfg.Runtime.Err()
		}
		if ctx.Err() != nil {
			return nil
		}
		logger.Error(err, "The containers' parent process was lost; another is started", "retry", delay)
		if !errors.Is(err, oci.ErrParentLost) || s.failure.get() != nil {
			select {
			case <-s.cfg.Clock.After(delay):
			case <-ctx.Done():
				return nil
			}
			delay = min(2*delay, followRetryLast)
		}
	}
}

// settle finds containers that should run and of which the parent, perhaps a
// new one, doesn't know.
func (s *Service) settle(ctx context.Context) error {
	running := s.runningContainers()
	if len(running) == 0 {
		return nil
	}
	list, err := s.cfg.Runtime.List(ctx)
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, st := range list {
		known[st.ID] = true
	}
	for _, c := range running {
		if !known[c.id] {
			exit := metadata.Exit{Code: codeLost, FinishedAt: s.cfg.Clock.Now(), Reason: reasonUnknown, Message: goneMessage}
			s.finishAndClean(ctx, c, exit)
		}
	}
	return nil
}

func (s *Service) runningContainers() []*container {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var out []*container
	for _, c := range s.containers {
		if c.state() == containerRunning {
			out = append(out, c)
		}
	}
	return out
}

// ended takes in the end of a container, or of a sandbox's holder, as the
// parent recorded it. It may be told more than once.
func (s *Service) ended(ctx context.Context, st oci.Status) {
	if c, err := s.container(st.ID); err == nil {
		s.finishAndClean(ctx, c, exitOf(st))
		return
	}
	if sb, err := s.sandbox(st.ID); err == nil {
		s.holderEnded(ctx, sb)
	}
	// Anything else is being created or removed by someone who will delete it.
}

func exitOf(st oci.Status) metadata.Exit {
	e := metadata.Exit{Code: int32(st.ExitCode), StartedAt: st.StartedAt, FinishedAt: st.ExitedAt}
	if e.StartedAt.After(e.FinishedAt) {
		e.StartedAt = e.FinishedAt // the parent took the time of the start only after the end
	}
	switch {
	case st.Reason == oci.ReasonShimLost:
		e.Reason, e.Message = st.Reason, lostMessage
	case st.Reason != "":
		e.Reason = st.Reason
	case st.OOMKilled:
		e.Reason = reasonOOMKilled
	case st.ExitCode == 0:
		e.Reason = reasonCompleted
	default:
		e.Reason = reasonError
	}
	return e
}

// finishAndClean tells of the end first; what is left of the container is
// cleaned up while the caller goes on.
func (s *Service) finishAndClean(ctx context.Context, c *container, exit metadata.Exit) {
	logger := klog.FromContext(ctx)
	if err := s.finish(c, exit); err != nil {
		logger.Error(err, "Could not record how a container ended", "container", c.id)
	}
	ctx = context.WithoutCancel(ctx)
	s.background.begin(func() {
		c.work.Lock()
		defer c.work.Unlock()
		if err := s.cleanContainer(ctx, c); err != nil {
			logger.Error(err, "Could not clean up after a container; its removal, or the next start of errand, will try again", "container", c.id)
		}
	})
}

// finish notes the container's end, on record before anyone is told. The first
// end told counts. Where it can't be recorded it is told all the same, and
// stays with the parent until recordExit succeeds.
func (s *Service) finish(c *container, exit metadata.Exit) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase == containerExited || c.phase == containerRemoved {
		return nil
	}
	if c.phase == containerStarting && exit.Reason != reasonStartError {
		// The end overtook the start's own return.
		c.phase, c.startedAt = containerRunning, exit.StartedAt
		s.events.tell(runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT, c.id, c.sandbox.id, exit.StartedAt)
	}
	if exit.StartedAt.IsZero() {
		exit.StartedAt = c.startedAt
	}
	if err := advance(&c.phase, containerExited, c.what()); err != nil {
		return err
	}
	c.exit, c.startedAt, c.unrecorded = &exit, exit.StartedAt, true
	err := s.recordExitLocked(c)
	close(c.ended)
	s.events.tell(runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT, c.id, c.sandbox.id, exit.FinishedAt)
	return err
}

// recordExit writes the container's end down, if that hasn't succeeded yet.
func (s *Service) recordExit(c *container) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return s.recordExitLocked(c)
}

// recordExitLocked is recordExit with c.mu held.
func (s *Service) recordExitLocked(c *container) error {
	if !c.unrecorded {
		return nil
	}
	if err := s.containerRecords.Put(c.id, c.record()); err != nil {
		return fmt.Errorf("%s: %w", c.what(), err)
	}
	c.unrecorded = false
	return nil
}

// holderEnded stops a sandbox whose shared PID namespace has ended under it.
func (s *Service) holderEnded(ctx context.Context, sb *sandbox) {
	logger := klog.FromContext(ctx)
	ctx = context.WithoutCancel(ctx)
	s.background.begin(func() {
		sb.life.Lock()
		defer sb.life.Unlock()
		if phase, _ := sb.state(); phase != sandboxReady {
			return // it was stopped, and the holder with it
		}
		logger.Info("A sandbox's process namespace has ended, and so the sandbox does", "sandbox", sb.id)
		if err := s.stopLocked(ctx, sb); err != nil {
			logger.Error(err, "Could not stop a sandbox", "sandbox", sb.id)
			return
		}
		s.events.tell(runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT, sb.id, sb.id, s.cfg.Clock.Now())
	})
}
