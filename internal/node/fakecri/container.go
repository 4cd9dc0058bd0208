package fakecri

import (
	"context"
	"path/filepath"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func (r *Runtime) createContainer(sandboxID string, config *runtimeapi.ContainerConfig) (string, error) {
	s := r.sandboxes[sandboxID]
	if s == nil {
		return "", notFound("sandbox", sandboxID)
	}
	image := r.image(config.Image.Image)
	if image == nil {
		return "", notFound("image", config.Image.Image)
	}
	c := &container{
		config:  proto.Clone(config).(*runtimeapi.ContainerConfig),
		sandbox: sandboxID,
		ended:   make(chan struct{}),
	}
	id := r.nextID("c")
	c.status = &runtimeapi.ContainerStatus{
		Id:          id,
		Metadata:    config.Metadata,
		State:       runtimeapi.ContainerState_CONTAINER_CREATED,
		CreatedAt:   r.Clock.Now().UnixNano() + int64(r.serial), // distinct under a clock that stands still
		Image:       config.Image,
		ImageRef:    image.RepoDigests[0],
		Labels:      config.Labels,
		Annotations: config.Annotations,
		LogPath:     filepath.Join(s.config.LogDirectory, config.LogPath),
		Resources:   &runtimeapi.ContainerResources{Linux: config.GetLinux().GetResources()},
	}
	if r.Behave != nil {
		c.does = r.Behave(config)
	}
	r.containers[id] = c
	r.tell(id, runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT)
	return id, nil
}

func (r *Runtime) startContainer(id string) error {
	c := r.containers[id]
	if c == nil {
		return notFound("container", id)
	}
	if c.status.State != runtimeapi.ContainerState_CONTAINER_CREATED {
		return status.Errorf(codes.FailedPrecondition, "container %q is not in created state", id)
	}
	if s := r.sandboxes[c.sandbox]; s.status.State != runtimeapi.PodSandboxState_SANDBOX_READY {
		return status.Errorf(codes.FailedPrecondition, "sandbox %q is not ready", c.sandbox)
	}
	r.starts[key(r.uidOf(c), c.config.Metadata.Name)]++
	c.status.StartedAt = r.Clock.Now().UnixNano()
	if c.does.StartError != "" {
		r.end(id, 128, "StartError")
		c.status.Message = c.does.StartError
		if c.does.Vanishes {
			delete(r.containers, id)
		}
		return status.Error(codes.Unknown, c.does.StartError)
	}
	c.status.State = runtimeapi.ContainerState_CONTAINER_RUNNING
	r.tell(id, runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT)
	if c.does.Exits {
		r.end(id, c.does.ExitCode, c.does.Reason)
	}
	return nil
}

// CreateContainer implements the CRI.
func (c *Client) CreateContainer(_ context.Context, sandboxID string, config *runtimeapi.ContainerConfig, _ *runtimeapi.PodSandboxConfig) (id string, err error) {
	err = c.do("CreateContainer", func(r *Runtime) error {
		id, err = r.createContainer(sandboxID, config)
		return err
	})
	return id, err
}

// StartContainer implements the CRI.
func (c *Client) StartContainer(_ context.Context, id string) error {
	return c.do("StartContainer", func(r *Runtime) error { return r.startContainer(id) })
}

// StopContainer implements the CRI: SIGTERM at once, SIGKILL after timeout
// seconds of the runtime's clock.
func (c *Client) StopContainer(ctx context.Context, id string, timeout int64) error {
	var wait *container
	err := c.do("StopContainer", func(r *Runtime) error {
		k := r.containers[id]
		switch {
		case k == nil:
			return notFound("container", id)
		case k.status.State != runtimeapi.ContainerState_CONTAINER_RUNNING:
		case k.does.IgnoresTerm && timeout > 0:
			wait = k
		case timeout > 0:
			r.end(id, 143, "")
		default:
			r.end(id, 137, "")
		}
		return nil
	})
	if err != nil || wait == nil {
		return err
	}
	select {
	case <-wait.ended:
	case <-ctx.Done():
		return ctx.Err()
	case <-c.runtime.Clock.After(time.Duration(timeout) * time.Second):
		c.runtime.mu.Lock()
		defer c.runtime.mu.Unlock()
		if wait.status.State == runtimeapi.ContainerState_CONTAINER_RUNNING {
			c.runtime.end(id, 137, "")
		}
	}
	return nil
}

// RemoveContainer implements the CRI.
func (c *Client) RemoveContainer(_ context.Context, id string) error {
	return c.do("RemoveContainer", func(r *Runtime) error {
		if k := r.containers[id]; k != nil {
			if k.status.State == runtimeapi.ContainerState_CONTAINER_RUNNING {
				r.end(id, 137, "")
			}
			delete(r.containers, id)
		}
		return nil
	})
}

// ListContainers implements the CRI.
func (c *Client) ListContainers(_ context.Context, filter *runtimeapi.ContainerFilter) (list []*runtimeapi.Container, err error) {
	err = c.do("ListContainers", func(r *Runtime) error {
		for _, id := range sortedKeys(r.containers) {
			k := r.containers[id]
			if !matches(k.status.Labels, filter.GetLabelSelector()) {
				continue
			}
			list = append(list, &runtimeapi.Container{
				Id: id, PodSandboxId: k.sandbox, Metadata: k.status.Metadata, Image: k.status.Image, ImageRef: k.status.ImageRef,
				State: k.status.State, CreatedAt: k.status.CreatedAt, Labels: k.status.Labels, Annotations: k.status.Annotations,
			})
		}
		return nil
	})
	return list, err
}

// ContainerStatus implements the CRI.
func (c *Client) ContainerStatus(_ context.Context, id string, _ bool) (resp *runtimeapi.ContainerStatusResponse, err error) {
	err = c.do("ContainerStatus", func(r *Runtime) error {
		k := r.containers[id]
		if k == nil {
			return notFound("container", id)
		}
		resp = &runtimeapi.ContainerStatusResponse{Status: proto.Clone(k.status).(*runtimeapi.ContainerStatus)}
		return nil
	})
	return resp, err
}
