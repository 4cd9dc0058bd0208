package imagegc

import (
	"context"

	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Images returns the image service that notes pulls.
func (c *Collector) Images() internalapi.ImageManagerService {
	return notedImages{c.cfg.Images, c}
}

// Runtime returns the runtime service that notes of which images containers are
// made, and when a pod is gone.
func (c *Collector) Runtime() internalapi.RuntimeService {
	return notedRuntime{c.cfg.Runtime, c}
}

type notedImages struct {
	internalapi.ImageManagerService
	c *Collector
}

// PullImage implements internalapi.ImageManagerService.
func (s notedImages) PullImage(ctx context.Context, image *runtimeapi.ImageSpec, auth *runtimeapi.AuthConfig, config *runtimeapi.PodSandboxConfig) (string, error) {
	ref, err := s.ImageManagerService.PullImage(ctx, image, auth, config)
	id := ""
	if err == nil {
		id, _ = s.c.id(ctx, ref) // else it is new when it is seen first
	}
	// A failed pull may have failed for want of room.
	s.c.occasion(func() {
		if _, known := s.c.seen[id]; !known && id != "" {
			s.c.seen[id] = s.c.cfg.Clock.Now()
		}
	})
	return ref, err
}

type notedRuntime struct {
	internalapi.RuntimeService
	c *Collector
}

// CreateContainer implements internalapi.RuntimeService.
func (s notedRuntime) CreateContainer(ctx context.Context, pod string, config *runtimeapi.ContainerConfig, sandbox *runtimeapi.PodSandboxConfig) (string, error) {
	id, err := s.RuntimeService.CreateContainer(ctx, pod, config, sandbox)
	if err != nil {
		return id, err
	}
	if image, err := s.c.id(ctx, config.GetImage().GetImage()); err == nil && image != "" {
		s.c.mu.Lock()
		defer s.c.mu.Unlock()
		s.c.used[image] = s.c.cfg.Clock.Now()
	}
	return id, nil
}

// RemovePodSandbox implements internalapi.RuntimeService.
func (s notedRuntime) RemovePodSandbox(ctx context.Context, id string) error {
	err := s.RuntimeService.RemovePodSandbox(ctx, id)
	s.c.occasion(func() {})
	return err
}

// occasion notes something, and has the disk looked at.
func (c *Collector) occasion(note func()) {
	c.mu.Lock()
	note()
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default: // it will be, soon
	}
}
