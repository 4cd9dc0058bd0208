package cri

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ContainerStatus returns the container's status. Code: NotFound.
func (s *Service) ContainerStatus(_ context.Context, id string, verbose bool) (*runtimeapi.ContainerStatusResponse, error) {
	c, err := s.container(id)
	if err != nil {
		return nil, toStatus(err)
	}
	resp := &runtimeapi.ContainerStatusResponse{Status: c.status()}
	if verbose {
		if resp.Info, err = c.info(); err != nil {
			return nil, toStatus(err)
		}
	}
	return resp, nil
}

// info is what crictl inspect shows besides the status, under the names that
// containerd has made customary.
func (c *container) info() (map[string]string, error) {
	config, err := protojson.Marshal(c.settings())
	if err != nil {
		return nil, fmt.Errorf("describe %s: %w", c.what(), err)
	}
	built, err := c.getSpec()
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // it goes with the container's end
		return nil, err
	}
	c.mu.Lock()
	pid, boot := c.pid, c.boot
	if c.phase != containerRunning {
		pid = 0
	}
	c.mu.Unlock()
	info, err := json.Marshal(struct {
		SandboxID string          `json:"sandboxID"`
		Pid       int             `json:"pid"`
		Bundle    string          `json:"bundle"`
		Boot      string          `json:"boot"`
		Config    json.RawMessage `json:"config"`
		Spec      *specs.Spec     `json:"runtimeSpec,omitempty"`
	}{c.sandbox.id, pid, c.bundle, boot, config, built})
	if err != nil {
		return nil, fmt.Errorf("describe %s: %w", c.what(), err)
	}
	return map[string]string{"info": string(info)}, nil
}

func (p containerPhase) cri() runtimeapi.ContainerState {
	switch p {
	case containerCreating, containerCreated, containerStarting:
		return runtimeapi.ContainerState_CONTAINER_CREATED
	case containerRunning:
		return runtimeapi.ContainerState_CONTAINER_RUNNING
	case containerExited, containerRemoved:
		return runtimeapi.ContainerState_CONTAINER_EXITED
	}
	return runtimeapi.ContainerState_CONTAINER_UNKNOWN
}

func (c *container) status() *runtimeapi.ContainerStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := &runtimeapi.ContainerStatus{
		Id:          c.id,
		Metadata:    c.config.GetMetadata(),
		State:       c.phase.cri(),
		CreatedAt:   c.createdAt.UnixNano(),
		Image:       c.image(),
		ImageRef:    c.imageRef,
		ImageId:     c.imageID,
		Labels:      c.config.GetLabels(),
		Annotations: c.config.GetAnnotations(),
		Mounts:      c.config.GetMounts(),
		LogPath:     c.logPath,
		Resources:   &runtimeapi.ContainerResources{Linux: c.config.GetLinux().GetResources()},
		User: &runtimeapi.ContainerUser{Linux: &runtimeapi.LinuxContainerUser{
			Uid: c.user.uid, Gid: c.user.gid, SupplementalGroups: c.user.groups,
		}},
		StopSignal: signalOf(int(c.stopSignal)),
	}
	if !c.startedAt.IsZero() {
		st.StartedAt = c.startedAt.UnixNano()
	}
	if c.exit != nil {
		st.ExitCode, st.Reason, st.Message = c.exit.Code, c.exit.Reason, c.exit.Message
		st.FinishedAt = c.exit.FinishedAt.UnixNano()
	}
	return st
}

// image is the image under the name that the user gave it, where that is known.
func (c *container) image() *runtimeapi.ImageSpec {
	img := c.config.GetImage()
	name := img.GetUserSpecifiedImage()
	if name == "" {
		return img
	}
	shown := proto.CloneOf(img)
	shown.Image = name
	return shown
}

// signalOf is the CRI's number for a signal, which counts them by name.
func signalOf(n int) runtimeapi.Signal {
	return runtimeapi.Signal(runtimeapi.Signal_value[signalNames(n)])
}

// ListContainers lists the containers that match the filter, oldest first.
func (s *Service) ListContainers(_ context.Context, f *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error) {
	var out []*runtimeapi.Container
	for _, c := range s.selected(f.GetId(), f.GetPodSandboxId(), f.GetLabelSelector()) {
		if f.GetState() != nil && f.GetState().GetState() != c.state().cri() {
			continue
		}
		st := c.status()
		out = append(out, &runtimeapi.Container{
			Id: st.Id, PodSandboxId: c.sandbox.id, Metadata: st.Metadata, Image: st.Image, ImageRef: st.ImageRef, ImageId: st.ImageId,
			State: st.State, CreatedAt: st.CreatedAt, Labels: st.Labels, Annotations: st.Annotations,
		})
	}
	return out, nil
}
