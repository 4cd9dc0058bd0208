package cri

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"errand.dev/errand/internal/cri/cgroups"
)

// StopPodSandbox kills what runs in the sandbox and takes its network and its
// pod's cgroup back: stopped sandboxes may stay for long and in great numbers,
// and the kernel has 65,535 memory cgroups to give. It is idempotent, also for a sandbox that isn't there.
func (s *Service) StopPodSandbox(ctx context.Context, id string) error {
	sb, err := s.sandbox(id)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return toStatus(err)
	}
	if err := s.stopSandbox(ctx, sb); err != nil {
		return toStatus(fmt.Errorf("failed to stop sandbox %q: %w", sb.id, err))
	}
	return nil
}

func (s *Service) stopSandbox(ctx context.Context, sb *sandbox) error {
	sb.life.Lock()
	defer sb.life.Unlock()
	return s.stopLocked(ctx, sb)
}

// stopLocked is stopSandbox with sb.life held.
func (s *Service) stopLocked(ctx context.Context, sb *sandbox) error {
	for _, c := range s.containersOf(sb.id) {
		if err := s.kill(ctx, c); err != nil {
			return err
		}
	}
	if phase, _ := sb.state(); phase != sandboxReady {
		return nil
	}
	if err := errors.Join(s.unmakeSandbox(ctx, sb), s.removeCgroup(ctx, sb)); err != nil {
		return err
	}
	return s.moveSandbox(sb, sandboxStopped)
}

// unmakeSandbox takes back what runs or is mounted for a sandbox: its holder,
// namespaces, address, files. It is idempotent and goes on after an error.
func (s *Service) unmakeSandbox(ctx context.Context, sb *sandbox) error {
	var errs []error
	if sb.sharesPID() {
		errs = append(errs, s.cfg.Runtime.Delete(ctx, sb.id))
	}
	errs = append(errs, s.cfg.Namespaces.Remove(sb.id))
	if sb.address.IsValid() {
		// Only now: the address must not reach another pod while this one's
		// interface still has it.
		errs = append(errs, s.cfg.Network.Release(sb.id))
	}
	errs = append(errs, s.removeSandboxFiles(sb.dir))
	return errors.Join(errs...)
}

func (s *Service) removeSandboxFiles(dir string) error {
	for _, mounted := range []string{"/shm", "/holder/pause"} {
		if err := s.cfg.Mounter.Unmount(dir + mounted); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove the sandbox's files: %w", err)
	}
	return nil
}

// RemovePodSandbox removes the sandbox and what containers it still has,
// killing those that run. It is idempotent.
func (s *Service) RemovePodSandbox(ctx context.Context, id string) error {
	sb, err := s.sandbox(id)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return toStatus(err)
	}
	if err := s.removeSandbox(ctx, sb); err != nil {
		return toStatus(fmt.Errorf("failed to remove sandbox %q: %w", sb.id, err))
	}
	return nil
}

func (s *Service) removeSandbox(ctx context.Context, sb *sandbox) error {
	sb.life.Lock()
	defer sb.life.Unlock()
	if err := s.stopLocked(ctx, sb); err != nil {
		return err
	}
	for _, c := range s.containersOf(sb.id) {
		if err := s.removeContainer(ctx, c); err != nil {
			return err
		}
	}
	if phase, _ := sb.state(); phase == sandboxRemoved {
		return nil // another call was faster
	}
	if err := s.forgetSandbox(ctx, sb); err != nil {
		return err
	}
	_, config := sb.state()
	s.release(sandboxName(config))
	s.dropSandbox(sb)
	sb.mu.Lock()
	defer sb.mu.Unlock()
	return advance(&sb.phase, sandboxRemoved, sb.what())
}

// forgetSandbox removes the pod's cgroup, if it is there still, and then the record, without which
// nothing of the sandbox is found any more.
func (s *Service) forgetSandbox(ctx context.Context, sb *sandbox) error {
	if err := s.removeCgroup(ctx, sb); err != nil {
		return err
	}
	return s.sandboxRecords.Delete(sb.id)
}

// UpdatePodSandboxResources sets new limits of the pod's cgroup (in-place
// resize, KEP-1287).
func (s *Service) UpdatePodSandboxResources(_ context.Context, req *runtimeapi.UpdatePodSandboxResourcesRequest) (*runtimeapi.UpdatePodSandboxResourcesResponse, error) {
	sb, err := s.sandbox(req.GetPodSandboxId())
	if err != nil {
		return nil, toStatus(err)
	}
	if err := s.updateSandbox(sb, req); err != nil {
		return nil, toStatus(fmt.Errorf("failed to update sandbox %q: %w", sb.id, err))
	}
	return &runtimeapi.UpdatePodSandboxResourcesResponse{}, nil
}

func (s *Service) updateSandbox(sb *sandbox, req *runtimeapi.UpdatePodSandboxResourcesRequest) error {
	sb.life.RLock()
	defer sb.life.RUnlock()
	phase, config := sb.state()
	if phase != sandboxReady {
		return fmt.Errorf("%s is %s: %w", sb.what(), phase, errdefs.ErrFailedPrecondition)
	}
	// Another cgroup's owner has changed its limits already.
	if s.ownsCgroup(sb) {
		if err := s.cfg.Cgroups.Update(s.cgroup(sb), cgroups.PodLimits(req.GetResources(), req.GetOverhead())); err != nil {
			return err
		}
	}
	changed := proto.CloneOf(config)
	if changed.Linux == nil {
		changed.Linux = &runtimeapi.LinuxPodSandboxConfig{}
	}
	changed.Linux.Resources, changed.Linux.Overhead = req.GetResources(), req.GetOverhead()
	sb.mu.Lock()
	sb.config = changed
	sb.mu.Unlock()
	return s.sandboxRecords.Put(sb.id, sb.record())
}
