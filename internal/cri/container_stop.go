package cri

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"errand.dev/errand/internal/oci"
)

// StopContainer sends the container its stop signal and, timeout seconds later,
// SIGKILL to all that is in it. It returns as soon as the container has exited.
// Stopping one that doesn't run, or isn't there, is no error.
func (s *Service) StopContainer(ctx context.Context, id string, timeout int64) error {
	c, err := s.container(id)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return toStatus(err)
	}
	// What is longer than that ends by the caller's own deadline.
	grace := time.Duration(min(timeout, int64(math.MaxInt64/time.Second))) * time.Second
	if err := s.stopContainer(ctx, c, grace); err != nil {
		return toStatus(fmt.Errorf("failed to stop container %q: %w", c.id, err))
	}
	return nil
}

func (s *Service) stopContainer(ctx context.Context, c *container, grace time.Duration) error {
	if c.state() == containerStarting {
		// Who starts it holds work.
		c.work.Lock()
		//lint:ignore SA2001 only to wait
		c.work.Unlock()
	}
	if c.state() != containerRunning {
		return nil
	}
	if grace > 0 {
		c.mu.Lock()
		sig := c.stopSignal
		c.mu.Unlock()
		if err := s.signal(ctx, c, sig, false); err != nil {
			return err
		}
		timer := s.cfg.Clock.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-c.ended:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C():
		}
	}
	return s.kill(ctx, c)
}

// kill kills a container that runs and waits for its end.
func (s *Service) kill(ctx context.Context, c *container) error {
	if c.state() != containerRunning {
		return nil
	}
	if err := s.signal(ctx, c, syscall.SIGKILL, true); err != nil {
		return err
	}
	select {
	case <-c.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for %s after SIGKILL: %w", c.what(), ctx.Err())
	}
}

func (s *Service) signal(ctx context.Context, c *container, sig syscall.Signal, all bool) error {
	err := s.cfg.Runtime.Signal(ctx, c.id, sig, all)
	if errors.Is(err, oci.ErrNotFound) {
		return nil // it has just ended; Run, or the next settle, tells how
	}
	return err
}

// cleanContainer takes back what only a running container needs: the parent's
// memory of it, which is also the acknowledgement of its end, its mount and its
// bundle. What was written to its root stays until it is removed. It is
// idempotent; c.work is held.
func (s *Service) cleanContainer(ctx context.Context, c *container) error {
	if c.clean {
		return nil
	}
	// An end that is acknowledged before it is on record would be lost with
	// this process, and the container be taken for one that was never started.
	if err := s.recordExit(c); err != nil {
		return err
	}
	if err := s.cfg.Runtime.Delete(ctx, c.id); err != nil {
		return err
	}
	if err := s.removeBundle(c.bundle); err != nil {
		return err
	}
	c.clean = true
	return nil
}

func (s *Service) removeBundle(bundle string) error {
	if err := s.cfg.Mounter.Unmount(bundle + "/rootfs"); err != nil {
		return err
	}
	if err := s.unmountImageVolumes(bundle); err != nil {
		return err
	}
	if err := s.cfg.Mounter.Unmount(scratch(bundle)); err != nil {
		return err
	}
	if err := os.RemoveAll(bundle); err != nil {
		return fmt.Errorf("remove the container's bundle: %w", err)
	}
	return nil
}

// unmakeContainer takes back everything but the record. It is idempotent.
func (s *Service) unmakeContainer(ctx context.Context, c *container) error {
	if err := s.cleanContainer(ctx, c); err != nil {
		return err
	}
	return s.cfg.Images.RemoveRootfs(ctx, c.id)
}

// RemoveContainer removes the container, killing it if it runs. Its log stays:
// that is the caller's. It is idempotent.
func (s *Service) RemoveContainer(ctx context.Context, id string) error {
	c, err := s.container(id)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return toStatus(err)
	}
	if err := s.removeContainer(ctx, c); err != nil {
		return toStatus(fmt.Errorf("failed to remove container %q: %w", c.id, err))
	}
	return nil
}

func (s *Service) removeContainer(ctx context.Context, c *container) error {
	c.work.Lock()
	defer c.work.Unlock()
	if err := s.kill(ctx, c); err != nil {
		return err
	}
	if c.state() == containerRemoved {
		return nil // another call was faster
	}
	if err := s.settleRecord(c); err != nil {
		return err
	}
	if err := s.unmakeContainer(ctx, c); err != nil {
		return err
	}
	if err := s.containerRecords.Delete(c.id); err != nil {
		return err
	}
	s.release(c.name())
	c.mu.Lock()
	err := advance(&c.phase, containerRemoved, c.what())
	c.mu.Unlock()
	s.dropContainer(c)
	s.events.tell(runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT, c.id, c.sandbox.id, s.cfg.Clock.Now())
	return err
}

// settleRecord makes a record that an end couldn't be written to no obstacle to
// the container's removal, which may be what gives the disk its space back. What
// has no record is an orphan, should this errand die now: it goes, and never
// starts.
func (s *Service) settleRecord(c *container) error {
	if s.recordExit(c) == nil {
		return nil
	}
	if err := s.containerRecords.Delete(c.id); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unrecorded = false
	return nil
}
