package cri

import (
	"context"
	"encoding/json"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"

	"errand.dev/errand/internal/cri/spec"
)

// Name is the runtime's name, with which container IDs in Kubernetes begin.
const Name = "errand"

// InfoNoUserNamespaces is the key in a verbose status of why the runtime handlers
// announce no user namespaces.
const InfoNoUserNamespaces = "noUserNamespaces"

const criVersion = "v1"

// Version tells the runtime's name and version.
func (s *Service) Version(context.Context, string) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{
		Version:     "0.1.0", // of the kubelet's API, the same with every runtime
		RuntimeName: Name, RuntimeVersion: s.cfg.Version, RuntimeApiVersion: criVersion,
	}, nil
}

// Status tells whether sandboxes and containers can be run. The network is
// ready as long as the runtime is: New had set it up.
func (s *Service) Status(_ context.Context, verbose bool) (*runtimeapi.StatusResponse, error) {
	ready := &runtimeapi.RuntimeCondition{Type: runtimeapi.RuntimeReady, Status: true}
	if err := s.failure.get(); err != nil {
		ready.Status, ready.Reason, ready.Message = false, "ContainerParentUnavailable", err.Error()
	}
	resp := &runtimeapi.StatusResponse{
		Status: &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
			ready, {Type: runtimeapi.NetworkReady, Status: true},
		}},
		Features: &runtimeapi.RuntimeFeatures{SupplementalGroupsPolicy: true, MountOptions: true},
	}
	features := &runtimeapi.RuntimeHandlerFeatures{RecursiveReadOnlyMounts: true, UserNamespaces: s.noUsers() == nil}
	resp.RuntimeHandlers = append(resp.RuntimeHandlers, &runtimeapi.RuntimeHandler{Features: features})
	for _, h := range s.cfg.Handlers {
		resp.RuntimeHandlers = append(resp.RuntimeHandlers, &runtimeapi.RuntimeHandler{Name: h, Features: features})
	}
	if verbose {
		info, err := json.Marshal(s.host)
		if err != nil {
			return nil, toStatus(err)
		}
		resp.Info = map[string]string{"host": string(info)}
		if err := s.noUsers(); err != nil {
			resp.Info[InfoNoUserNamespaces] = err.Error()
		}
	}
	return resp, nil
}

// RuntimeConfig tells that cgroups are driven by writing to their files.
func (s *Service) RuntimeConfig(context.Context) (*runtimeapi.RuntimeConfigResponse, error) {
	return &runtimeapi.RuntimeConfigResponse{Linux: &runtimeapi.LinuxRuntimeConfiguration{CgroupDriver: runtimeapi.CgroupDriver_CGROUPFS}}, nil
}

// UpdateRuntimeConfig does nothing: the range of pod addresses is errand's own
// choice, made before the first pod.
func (s *Service) UpdateRuntimeConfig(context.Context, *runtimeapi.RuntimeConfig) error { return nil }

// ReopenContainerLog makes the parent open the container's log anew after it
// was renamed. Codes: NotFound, FailedPrecondition (it doesn't run).
func (s *Service) ReopenContainerLog(ctx context.Context, id string) error {
	c, err := s.running(id)
	if err != nil {
		return toStatus(err)
	}
	return toStatus(s.cfg.Runtime.ReopenLog(ctx, c.id))
}

// running finds a container that runs.
func (s *Service) running(id string) (*container, error) {
	c, err := s.container(id)
	if err != nil {
		return nil, err
	}
	if p := c.state(); p != containerRunning {
		return nil, fmt.Errorf("%s is %s, not running: %w", c.what(), p, errdefs.ErrFailedPrecondition)
	}
	return c, nil
}

// UpdateContainerResources changes the container's limits, of one that hasn't
// been started those with which it will be (in-place resize, KEP-1287). Codes:
// NotFound, InvalidArgument, FailedPrecondition (it has exited).
func (s *Service) UpdateContainerResources(ctx context.Context, id string, r *runtimeapi.ContainerResources) error {
	c, err := s.container(id)
	if err != nil {
		return toStatus(err)
	}
	if r.GetWindows() != nil {
		return toStatus(fmt.Errorf("%w: %s has no resources of Windows", spec.ErrInvalid, c.what()))
	}
	c.work.Lock()
	defer c.work.Unlock()
	if err := s.updateContainer(ctx, c, r.GetLinux()); err != nil {
		return toStatus(fmt.Errorf("failed to update resources of container %q: %w", c.id, err))
	}
	return nil
}

func (s *Service) updateContainer(ctx context.Context, c *container, change *runtimeapi.LinuxContainerResources) error {
	switch phase := c.state(); phase {
	case containerRunning:
		if err := s.cfg.Runtime.Update(ctx, c.id, spec.Resources(change, s.host)); err != nil {
			return err
		}
	case containerCreated:
		built, err := c.getSpec()
		if err != nil {
			return err
		}
		limits := spec.Resources(merged(c.settings().GetLinux().GetResources(), change), s.host)
		limits.Devices = built.Linux.Resources.Devices
		built.Linux.Resources = limits
		if err := c.putSpec(built); err != nil {
			return err
		}
	default:
		return fmt.Errorf("%s is %s: %w", c.what(), phase, errdefs.ErrFailedPrecondition)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	changed := proto.CloneOf(c.config)
	if changed.Linux == nil {
		changed.Linux = &runtimeapi.LinuxContainerConfig{}
	}
	changed.Linux.Resources = merged(changed.Linux.Resources, change)
	c.config = changed
	return s.containerRecords.Put(c.id, c.record())
}

// merged overlays what is set in change.
func merged(old, change *runtimeapi.LinuxContainerResources) *runtimeapi.LinuxContainerResources {
	out := &runtimeapi.LinuxContainerResources{}
	if old != nil {
		out = proto.CloneOf(old)
	}
	if change == nil {
		return out
	}
	if len(change.GetHugepageLimits()) > 0 {
		out.HugepageLimits = nil // proto.Merge would append
	}
	proto.Merge(out, change)
	return out
}

// errCheckpoint is what the CRI wants of a runtime without checkpoints.
var errCheckpoint = status.Error(codes.Unimplemented, "checkpoints are not supported by errand's embedded runtime")

// CheckpointContainer is not supported. Code: Unimplemented.
func (s *Service) CheckpointContainer(context.Context, *runtimeapi.CheckpointContainerRequest) error {
	return errCheckpoint
}

// CheckpointPod is not supported. Code: Unimplemented.
func (s *Service) CheckpointPod(context.Context, *runtimeapi.CheckpointPodRequest) error {
	return errCheckpoint
}

// RestorePod is not supported. Code: Unimplemented.
func (s *Service) RestorePod(context.Context, *runtimeapi.RestorePodRequest) (*runtimeapi.RestorePodResponse, error) {
	return nil, errCheckpoint
}
