package fakecri

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func (r *Runtime) runPodSandbox(config *runtimeapi.PodSandboxConfig) (string, error) {
	id := r.nextID("s")
	r.sandboxes[id] = &sandbox{
		config: proto.Clone(config).(*runtimeapi.PodSandboxConfig),
		status: &runtimeapi.PodSandboxStatus{
			Id:          id,
			Metadata:    config.Metadata,
			State:       runtimeapi.PodSandboxState_SANDBOX_READY,
			CreatedAt:   r.Clock.Now().UnixNano(),
			Network:     &runtimeapi.PodSandboxNetworkStatus{Ip: fmt.Sprintf("10.88.0.%d", 1+r.serial%250)},
			Labels:      config.Labels,
			Annotations: config.Annotations,
		},
	}
	return id, nil
}

func (r *Runtime) stopPodSandbox(id string) error {
	s := r.sandboxes[id]
	if s == nil {
		return notFound("sandbox", id)
	}
	for cid, c := range r.containers {
		if c.sandbox == id && c.status.State == runtimeapi.ContainerState_CONTAINER_RUNNING {
			r.end(cid, 137, "")
		}
	}
	s.status.State = runtimeapi.PodSandboxState_SANDBOX_NOTREADY
	return nil
}

func (r *Runtime) removePodSandbox(id string) error {
	if r.sandboxes[id] == nil {
		return nil
	}
	if err := r.stopPodSandbox(id); err != nil {
		return err
	}
	for cid, c := range r.containers {
		if c.sandbox == id {
			delete(r.containers, cid)
		}
	}
	delete(r.sandboxes, id)
	return nil
}

func (r *Runtime) listSandboxes(filter *runtimeapi.PodSandboxFilter) []*runtimeapi.PodSandbox {
	var list []*runtimeapi.PodSandbox
	for _, id := range sortedKeys(r.sandboxes) {
		s := r.sandboxes[id].status
		if !matches(s.Labels, filter.GetLabelSelector()) {
			continue
		}
		list = append(list, &runtimeapi.PodSandbox{
			Id: id, Metadata: s.Metadata, State: s.State, CreatedAt: s.CreatedAt, Labels: s.Labels, Annotations: s.Annotations,
		})
	}
	return list
}

// RunPodSandbox implements the CRI.
func (c *Client) RunPodSandbox(_ context.Context, config *runtimeapi.PodSandboxConfig, _ string) (id string, err error) {
	err = c.do("RunPodSandbox", func(r *Runtime) error {
		id, err = r.runPodSandbox(config)
		return err
	})
	return id, err
}

// StopPodSandbox implements the CRI.
func (c *Client) StopPodSandbox(_ context.Context, id string) error {
	return c.do("StopPodSandbox", func(r *Runtime) error { return r.stopPodSandbox(id) })
}

// RemovePodSandbox implements the CRI.
func (c *Client) RemovePodSandbox(_ context.Context, id string) error {
	return c.do("RemovePodSandbox", func(r *Runtime) error { return r.removePodSandbox(id) })
}

// PodSandboxStatus implements the CRI.
func (c *Client) PodSandboxStatus(_ context.Context, id string, _ bool) (resp *runtimeapi.PodSandboxStatusResponse, err error) {
	err = c.do("PodSandboxStatus", func(r *Runtime) error {
		s := r.sandboxes[id]
		if s == nil {
			return notFound("sandbox", id)
		}
		resp = &runtimeapi.PodSandboxStatusResponse{Status: proto.Clone(s.status).(*runtimeapi.PodSandboxStatus)}
		return nil
	})
	return resp, err
}

// ListPodSandbox implements the CRI.
func (c *Client) ListPodSandbox(_ context.Context, filter *runtimeapi.PodSandboxFilter) (list []*runtimeapi.PodSandbox, err error) {
	err = c.do("ListPodSandbox", func(r *Runtime) error {
		list = r.listSandboxes(filter)
		return nil
	})
	return list, err
}
