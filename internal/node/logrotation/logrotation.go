// Package logrotation bounds containers' logs where the runtime doesn't do it by
// itself: as the kubelet does, it looks at the logs of running containers every ten
// seconds, renames those that have grown too large, and has the runtime begin new
// ones. The embedded runtime needs none of this.
//
// It owns the files' names and their compression, which package podserver reads;
// it doesn't own what is written.
package logrotation

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

// period is the kubelet's containerLogMonitorInterval.
const period = 10 * time.Second

// Runtime is what is asked of the container runtime; the CRI's RuntimeService has it.
type Runtime interface {
	ListContainers(ctx context.Context, filter *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error)
	ContainerStatus(ctx context.Context, id string, verbose bool) (*runtimeapi.ContainerStatusResponse, error)
	ReopenContainerLog(ctx context.Context, id string) error
}

// Config is what a Rotator needs.
type Config struct {
	Runtime Runtime
	// MaxSize is the size in bytes past which a log is rotated; 0 lets logs grow.
	MaxSize int64
	// MaxFiles is how many files of a log there are, the current one included; at
	// least 2.
	MaxFiles int
	// Clock defaults to the real one.
	Clock clock.WithTicker
}

// Rotator rotates logs. Make it with New and run it once.
type Rotator struct {
	cfg Config
	// paths are the running containers' logs, by container ID.
	paths map[string]string
}

// New returns a Rotator.
func New(cfg Config) (*Rotator, error) {
	if cfg.Runtime == nil || cfg.MaxSize < 0 || cfg.MaxFiles < 2 {
		return nil, errors.New("logrotation: Runtime must be set, MaxSize not negative, MaxFiles at least 2")
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	return &Rotator{cfg: cfg, paths: map[string]string{}}, nil
}

// Run rotates until ctx ends, then returns nil.
func (r *Rotator) Run(ctx context.Context) error {
	if r.cfg.MaxSize == 0 {
		<-ctx.Done()
		return nil
	}
	ticker := r.cfg.Clock.NewTicker(period)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C():
			r.look(ctx)
		}
	}
}

// look rotates what is too large. One log's trouble isn't another's.
func (r *Rotator) look(ctx context.Context) {
	logger := klog.FromContext(ctx)
	running, err := r.cfg.Runtime.ListContainers(ctx, &runtimeapi.ContainerFilter{
		State: &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING},
	})
	if err != nil {
		logger.V(2).Info("Containers could not be listed, whose logs would be looked at", "err", err)
		return
	}
	paths := make(map[string]string, len(running))
	for _, c := range running {
		path, err := r.path(ctx, c.GetId())
		if err == nil && path != "" {
			paths[c.GetId()] = path
			err = r.rotateIfLarge(ctx, c.GetId(), path)
		}
		if err != nil && ctx.Err() == nil {
			logger.Error(err, "A container's log could not be rotated", "containerID", c.GetId(), "path", path)
		}
	}
	r.paths = paths
}

// path is where a container's log is, "" if it has none.
func (r *Rotator) path(ctx context.Context, id string) (string, error) {
	if path := r.paths[id]; path != "" {
		return path, nil
	}
	resp, err := r.cfg.Runtime.ContainerStatus(ctx, id, false)
	if err != nil {
		return "", fmt.Errorf("ask for the log's path: %w", err)
	}
	return resp.GetStatus().GetLogPath(), nil
}

func (r *Rotator) rotateIfLarge(ctx context.Context, id, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		// A rotation was cut off between its two steps.
		return r.reopen(ctx, id)
	}
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("it is not a regular file")
	}
	if info.Size() < r.cfg.MaxSize {
		return nil
	}
	stamp, err := makeRoom(path, r.cfg.MaxFiles, r.cfg.Clock.Now())
	if err != nil {
		return err
	}
	aside := path + "." + stamp
	if err := os.Rename(path, aside); err != nil {
		return err
	}
	if err := r.reopen(ctx, id); err != nil {
		return errors.Join(err, os.Rename(aside, path)) // it is still written to
	}
	return nil
}

func (r *Rotator) reopen(ctx context.Context, id string) error {
	if err := r.cfg.Runtime.ReopenContainerLog(ctx, id); err != nil {
		return fmt.Errorf("have a new log begun: %w", err)
	}
	return nil
}
