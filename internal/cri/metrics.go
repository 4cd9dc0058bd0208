package cri

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"errand.dev/errand/internal/cri/cgroups"
	"errand.dev/errand/internal/cri/metrics"
)

// ListMetricDescriptors names the metrics that ListPodSandboxMetrics tells.
func (s *Service) ListMetricDescriptors(context.Context) ([]*runtimeapi.MetricDescriptor, error) {
	return metrics.Descriptors(), nil
}

// ListPodSandboxMetrics tells the metrics of all sandboxes that are ready and of
// their running containers. What ends meanwhile is left out.
func (s *Service) ListPodSandboxMetrics(ctx context.Context) ([]*runtimeapi.PodSandboxMetrics, error) {
	var out []*runtimeapi.PodSandboxMetrics
	for _, sb := range s.allSandboxes() {
		if phase, _ := sb.state(); phase != sandboxReady {
			continue
		}
		pod := &runtimeapi.PodSandboxMetrics{PodSandboxId: sb.id, Metrics: s.sandboxMetrics(sb)}
		for _, c := range s.containersOf(sb.id) {
			m, err := s.containerMetrics(ctx, c)
			if err != nil {
				return nil, toStatus(fmt.Errorf("measure %s: %w", c.what(), err))
			}
			if m != nil {
				pod.ContainerMetrics = append(pod.ContainerMetrics, &runtimeapi.ContainerMetrics{ContainerId: c.id, Metrics: m})
			}
		}
		out = append(out, pod)
	}
	return out, nil
}

func (s *Service) sandboxMetrics(sb *sandbox) []*runtimeapi.Metric {
	_, config := sb.state()
	meta := config.GetMetadata()
	pod := metrics.Pod{Subject: metrics.Subject{
		Container: "POD", ID: s.cgroup(sb), Name: sb.id, Namespace: meta.GetNamespace(), Pod: meta.GetName(),
	}}
	if sb.address.IsValid() {
		// It fails where the sandbox has just been stopped.
		if u, err := s.cfg.Network.Usage(sb.id); err == nil {
			pod.Network = &u
		}
	}
	return pod.Of()
}

// containerMetrics are nil of a container that doesn't run.
func (s *Service) containerMetrics(ctx context.Context, c *container) ([]*runtimeapi.Metric, error) {
	if c.state() != containerRunning {
		return nil, nil
	}
	m, err := s.measure(ctx, c)
	switch {
	case err == nil:
		return m.Of(), nil
	case errors.Is(err, cgroups.ErrNotFound), c.state() != containerRunning:
		return nil, nil // it has just ended
	}
	return nil, err
}

func (s *Service) measure(ctx context.Context, c *container) (m metrics.Container, err error) {
	config := c.settings()
	_, pod := c.sandbox.state()
	m = metrics.Container{
		Subject: metrics.Subject{
			Container: config.GetMetadata().GetName(), ID: c.cgroup(s), Name: c.id, Image: c.image().GetImage(),
			Namespace: pod.GetMetadata().GetNamespace(), Pod: pod.GetMetadata().GetName(),
		},
		Resources: config.GetLinux().GetResources(), At: s.cfg.Clock.Now(),
	}
	c.mu.Lock()
	m.StartedAt = c.startedAt
	c.mu.Unlock()
	if m.Stats, err = s.cfg.Cgroups.Stats(c.cgroup(s)); err != nil {
		return m, err
	}
	if m.Detail, err = s.cfg.Cgroups.Detail(c.cgroup(s)); err != nil {
		return m, err
	}
	if m.Disk, err = s.diskOf(ctx, c); err != nil {
		return m, err
	}
	pids, err := s.cfg.Cgroups.Processes(c.cgroup(s))
	if err != nil {
		return m, err
	}
	m.Processes = uint64(len(pids))
	for _, pid := range pids {
		files, sockets := openFiles(pid)
		m.OpenFiles += files
		m.Sockets += sockets
	}
	return m, nil
}

func (s *Service) diskOf(ctx context.Context, c *container) (metrics.Disk, error) {
	var d metrics.Disk
	used, err := s.cfg.Images.RootfsUsage(ctx, c.id)
	if err != nil && !errdefs.IsNotFound(err) {
		return d, err
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(s.cfg.Root, &fs); err != nil {
		return d, fmt.Errorf("measure the file system of %s: %w", s.cfg.Root, err)
	}
	return metrics.Disk{Used: uint64(used.Bytes), Size: fs.Blocks * uint64(fs.Bsize), Inodes: fs.Files, FreeInodes: fs.Ffree}, nil
}

// openFiles counts a process's file descriptors, and the sockets among them:
// none of one that has gone.
func openFiles(pid int) (files, sockets uint64) {
	dir := filepath.Join("/proc", strconv.Itoa(pid), "fd")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, 0
	}
	for _, e := range entries {
		if target, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil && strings.HasPrefix(target, "socket:") {
			sockets++
		}
	}
	return uint64(len(entries)), sockets
}
