package fakecri

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// UpdateContainerResources implements the CRI. As in the kernel, no container gets
// more CPU than its pod.
func (c *Client) UpdateContainerResources(_ context.Context, id string, resources *runtimeapi.ContainerResources) error {
	return c.do("UpdateContainerResources", func(r *Runtime) error {
		container := r.containers[id]
		if container == nil {
			return notFound("container", id)
		}
		pod := r.sandboxes[container.sandbox].config.GetLinux().GetResources().GetCpuQuota()
		if quota := resources.GetLinux().GetCpuQuota(); pod > 0 && quota > pod {
			return status.Errorf(codes.Unknown, "write cpu.cfs_quota_us: %d is more than the pod's %d: invalid argument", quota, pod)
		}
		changed := proto.CloneOf(container.status)
		changed.Resources = proto.CloneOf(resources)
		container.status = changed
		return nil
	})
}

// UpdatePodSandboxResources implements the CRI.
func (c *Client) UpdatePodSandboxResources(_ context.Context, req *runtimeapi.UpdatePodSandboxResourcesRequest) (*runtimeapi.UpdatePodSandboxResourcesResponse, error) {
	err := c.do("UpdatePodSandboxResources", func(r *Runtime) error {
		s := r.sandboxes[req.PodSandboxId]
		if s == nil {
			return notFound("sandbox", req.PodSandboxId)
		}
		s.config = proto.CloneOf(s.config)
		changed := proto.CloneOf(req.Resources)
		if changed.MemoryLimitInBytes == 0 { // unchanged
			changed.MemoryLimitInBytes = s.config.Linux.GetResources().GetMemoryLimitInBytes()
		}
		s.config.Linux.Resources = changed
		return nil
	})
	return &runtimeapi.UpdatePodSandboxResourcesResponse{}, err
}

// Uses makes the container use so many bytes of memory.
func (r *Runtime) Uses(uid, name string, bytes uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.usage[key(uid, name)] = bytes
}

// ContainerStats implements the CRI: what Uses was told.
func (c *Client) ContainerStats(_ context.Context, id string) (stats *runtimeapi.ContainerStats, err error) {
	err = c.do("ContainerStats", func(r *Runtime) error {
		container := r.containers[id]
		if container == nil {
			return notFound("container", id)
		}
		usage := r.usage[key(r.uidOf(container), container.config.Metadata.Name)]
		stats = &runtimeapi.ContainerStats{Memory: &runtimeapi.MemoryUsage{UsageBytes: &runtimeapi.UInt64Value{Value: usage}}}
		return nil
	})
	return stats, err
}

// PodSandboxStats implements the CRI: the sum of its containers'.
func (c *Client) PodSandboxStats(_ context.Context, id string) (stats *runtimeapi.PodSandboxStats, err error) {
	err = c.do("PodSandboxStats", func(r *Runtime) error {
		if r.sandboxes[id] == nil {
			return notFound("sandbox", id)
		}
		usage := uint64(0)
		for _, container := range r.containers {
			if container.sandbox == id {
				usage += r.usage[key(r.uidOf(container), container.config.Metadata.Name)]
			}
		}
		stats = &runtimeapi.PodSandboxStats{Linux: &runtimeapi.LinuxPodSandboxStats{
			Memory: &runtimeapi.MemoryUsage{UsageBytes: &runtimeapi.UInt64Value{Value: usage}},
		}}
		return nil
	})
	return stats, err
}
