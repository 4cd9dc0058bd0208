package cri

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"errand.dev/errand/internal/cri/metadata"
	"errand.dev/errand/internal/oci"
)

// Reasons and codes of ends that aren't the process's own.
const (
	reasonStartError = "StartError"
	codeStartError   = 128
	codeLost         = 137 // as if killed
)

// StartContainer starts a container that was created. It returns once the
// process runs; how many are started at once is bounded. A container that can't
// be started has exited with code 128 and the reason StartError, and the error
// says why. Codes: NotFound, FailedPrecondition, Unavailable, Unknown.
func (s *Service) StartContainer(ctx context.Context, id string) error {
	c, err := s.container(id)
	if err != nil {
		return toStatus(err)
	}
	select {
	case s.starts <- struct{}{}:
		defer func() { <-s.starts }()
	case <-ctx.Done():
		return toStatus(fmt.Errorf("failed to start container %q: %w", c.id, ctx.Err()))
	}
	if err := s.startContainer(ctx, c); err != nil {
		return toStatus(fmt.Errorf("failed to start container %q: %w", c.id, err))
	}
	return nil
}

func (s *Service) startContainer(ctx context.Context, c *container) error {
	c.sandbox.life.RLock()
	defer c.sandbox.life.RUnlock()
	if phase, _ := c.sandbox.state(); phase != sandboxReady {
		return fmt.Errorf("%s is %s: %w", c.sandbox.what(), phase, errdefs.ErrFailedPrecondition)
	}
	c.work.Lock()
	defer c.work.Unlock()
	c.mu.Lock()
	err := advance(&c.phase, containerStarting, c.what())
	config := c.config
	c.mu.Unlock()
	if err != nil {
		return err
	}
	if c.logPath != "" {
		if err := os.MkdirAll(filepath.Dir(c.logPath), 0o755); err != nil {
			return s.startFailed(ctx, c, fmt.Errorf("make the log's directory: %w", err))
		}
	}
	pid, err := s.run(ctx, c, oci.RunRequest{
		ID: c.id, Bundle: c.bundle, Handler: c.sandbox.handler,
		LogPath: c.logPath, LogMaxSize: s.cfg.LogMaxSize, LogMaxFiles: s.cfg.LogMaxFiles,
		Stdin: config.GetStdin(), StdinOnce: config.GetStdinOnce(), Terminal: config.GetTty(),
	})
	if err != nil {
		return s.startFailed(ctx, c, err)
	}
	return s.started(c, pid, s.cfg.Clock.Now())
}

// What run waits between its tries: 10 s in all.
const (
	adoptRetryFirst = 5 * time.Millisecond
	adoptRetryLast  = 5 * time.Second
)

// run starts the container, or adopts it: an errand that was killed while it
// waited for this very start left it with the parent, which finishes it. The
// parent tells of a container only once it runs, hence the few, bounded retries.
func (s *Service) run(ctx context.Context, c *container, req oci.RunRequest) (int, error) {
	for delay := adoptRetryFirst; ; delay *= 2 {
		pid, err := s.cfg.Runtime.Run(ctx, req)
		if !errors.Is(err, oci.ErrExists) || delay > adoptRetryLast {
			return pid, err
		}
		known, lerr := s.cfg.Runtime.List(ctx)
		if lerr != nil {
			return 0, lerr
		}
		for _, st := range known {
			if st.ID == c.id {
				klog.FromContext(ctx).Info("Adopted a container that an earlier errand started", "container", c.id)
				return st.Pid, nil
			}
		}
		select {
		case <-s.cfg.Clock.After(delay):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// started notes that the container runs, unless its end has been noted already.
func (s *Service) started(c *container, pid int, at time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase == containerExited {
		return nil
	}
	if err := advance(&c.phase, containerRunning, c.what()); err != nil {
		return err
	}
	c.pid, c.startedAt = pid, at
	s.events.tell(runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT, c.id, c.sandbox.id, at)
	return nil
}

// startFailed notes what became of a start that failed, and returns err with
// what went wrong with that. c.work is held.
func (s *Service) startFailed(ctx context.Context, c *container, err error) error {
	clean := context.WithoutCancel(ctx)
	if ctx.Err() != nil && !errors.Is(err, oci.ErrParentLost) {
		// The start was called off, and nothing is left of it.
		c.mu.Lock()
		defer c.mu.Unlock()
		return errors.Join(err, advance(&c.phase, containerCreated, c.what()))
	}
	exit := metadata.Exit{Code: codeStartError, FinishedAt: s.cfg.Clock.Now(), Reason: reasonStartError, Message: err.Error()}
	if errors.Is(err, oci.ErrParentLost) {
		exit.Code, exit.Reason, exit.Message = codeLost, oci.ReasonShimLost, lostMessage
		err = errors.Join(err, s.endLost(clean, c, exit))
	}
	return errors.Join(err, s.finish(c, exit), s.cleanContainer(clean, c))
}

// endLost sees to it that a container of which nobody knows whether it ran
// doesn't run now. Its end is on record before the parent forgets it; where it
// can't be, the parent keeps it.
func (s *Service) endLost(ctx context.Context, c *container, exit metadata.Exit) error {
	c.mu.Lock()
	record := c.record()
	c.mu.Unlock()
	record.Phase, record.Exit = metadata.Ended, &exit
	if s.containerRecords.Put(c.id, record) != nil { // finish meets the same error, and returns it
		return s.signal(ctx, c, syscall.SIGKILL, true)
	}
	return s.cfg.Runtime.Delete(ctx, c.id)
}
