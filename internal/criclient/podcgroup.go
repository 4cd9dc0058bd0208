package criclient

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	crierrors "k8s.io/cri-api/pkg/errors"

	"errand.dev/errand/internal/cri/cgroups"
)

// What removing a cgroup waits between its tries: 2 s in all.
const (
	cgroupRetryFirst = time.Millisecond
	cgroupRetryLast  = time.Second
)

// pod is what a sandbox tells of its pod.
type pod struct{ uid, cgroup string }

// RunPodSandbox implements internalapi.RuntimeService. It makes the pod's cgroup
// with the pod's limits first; the runtime's are below.
func (s runtimeService) RunPodSandbox(ctx context.Context, config *runtimeapi.PodSandboxConfig, handler string) (string, error) {
	l, err := s.current()
	if err != nil {
		return "", err
	}
	linux := config.GetLinux()
	p := pod{uid: config.GetMetadata().GetUid(), cgroup: linux.GetCgroupParent()}
	if p.cgroup != "" {
		if err := s.cfg.Cgroups.Create(p.cgroup, cgroups.PodLimits(linux.GetResources(), linux.GetOverhead())); err != nil {
			return "", err
		}
	}
	id, err := l.runtime.RunPodSandbox(quiet(ctx), s.owned(config), handler)
	if err != nil {
		// There may be no other attempt.
		return "", errors.Join(err, s.release(ctx, p, ""))
	}
	return id, nil
}

// StopPodSandbox implements internalapi.RuntimeService. It removes the pod's
// cgroup with the last sandbox that uses it.
func (s runtimeService) StopPodSandbox(ctx context.Context, id string) error {
	return s.end(ctx, id, internalapi.RuntimeService.StopPodSandbox)
}

// RemovePodSandbox implements internalapi.RuntimeService. A sandbox that ended by
// itself was never stopped by anyone.
func (s runtimeService) RemovePodSandbox(ctx context.Context, id string) error {
	return s.end(ctx, id, internalapi.RuntimeService.RemovePodSandbox)
}

// end stops or removes a sandbox, and then releases its pod's cgroup.
func (s runtimeService) end(ctx context.Context, id string, call func(internalapi.RuntimeService, context.Context, string) error) error {
	l, err := s.current()
	if err != nil {
		return err
	}
	p, err := s.podOf(ctx, l, id)
	if err != nil {
		return err
	}
	if err := call(l.runtime, quiet(ctx), id); err != nil {
		return err
	}
	return s.release(ctx, p, id)
}

// UpdatePodSandboxResources implements internalapi.RuntimeService.
func (s runtimeService) UpdatePodSandboxResources(ctx context.Context, request *runtimeapi.UpdatePodSandboxResourcesRequest) (*runtimeapi.UpdatePodSandboxResourcesResponse, error) {
	l, err := s.current()
	if err != nil {
		return nil, err
	}
	p, err := s.podOf(ctx, l, request.GetPodSandboxId())
	if err != nil {
		return nil, err
	}
	if p.cgroup != "" {
		if err := s.cfg.Cgroups.Update(p.cgroup, cgroups.PodLimits(request.GetResources(), request.GetOverhead())); err != nil {
			return nil, err
		}
	}
	return l.runtime.UpdatePodSandboxResources(quiet(ctx), request)
}

// podOf returns the zero pod if there is no such sandbox.
func (s runtimeService) podOf(ctx context.Context, l *link, id string) (pod, error) {
	resp, err := l.runtime.PodSandboxStatus(quiet(ctx), id, false)
	if crierrors.IsNotFound(err) {
		return pod{}, nil
	}
	if err != nil {
		return pod{}, err
	}
	return pod{uid: resp.GetStatus().GetMetadata().GetUid(), cgroup: resp.GetStatus().GetAnnotations()[annotationCgroup]}, nil
}

// release removes the pod's cgroup, unless a sandbox other than id uses it.
// What is left in it is killed. A killed process leaves its cgroup only once the
// kernel has taken it apart, of which version 1 gives no notice: hence the few,
// bounded retries, which version 2 makes short.
func (s runtimeService) release(ctx context.Context, p pod, id string) error {
	if p.cgroup == "" || !s.cfg.Cgroups.Exists(p.cgroup) {
		return nil
	}
	others, err := s.ListPodSandbox(ctx, &runtimeapi.PodSandboxFilter{
		State: &runtimeapi.PodSandboxStateValue{State: runtimeapi.PodSandboxState_SANDBOX_READY},
	})
	if err != nil {
		return fmt.Errorf("look who else uses the cgroup %s: %w", p.cgroup, err)
	}
	for _, o := range others {
		if o.GetMetadata().GetUid() == p.uid && o.GetId() != id {
			return nil
		}
	}
	err = s.cfg.Cgroups.Remove(p.cgroup)
	for delay := cgroupRetryFirst; errors.Is(err, unix.EBUSY) && delay <= cgroupRetryLast; delay *= 2 {
		if err := s.cfg.Cgroups.Kill(p.cgroup); err != nil {
			return err
		}
		if !s.cfg.Cgroups.AwaitEmpty(p.cgroup, delay) {
			select {
			case <-s.cfg.Clock.After(delay):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		err = s.cfg.Cgroups.Remove(p.cgroup)
	}
	return err
}
