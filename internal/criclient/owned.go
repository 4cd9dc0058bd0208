package criclient

import (
	"context"
	"maps"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	// LabelOwner is on every sandbox and container of an errand's: the node ends
	// what it finds and doesn't know, which must not be somebody else's.
	LabelOwner = "errand.dev/instance"
	// annotationCgroup, on sandboxes, is the pod's cgroup.
	annotationCgroup = "errand.dev/pod-cgroup"
)

// mine adds the owner to a label selector.
func (s runtimeService) mine(labels map[string]string) map[string]string {
	labels = maps.Clone(labels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels[LabelOwner] = s.cfg.Owner
	return labels
}

func (s runtimeService) owned(config *runtimeapi.PodSandboxConfig) *runtimeapi.PodSandboxConfig {
	if config == nil {
		return nil
	}
	config = proto.Clone(config).(*runtimeapi.PodSandboxConfig)
	config.Labels = s.mine(config.GetLabels())
	if parent := config.GetLinux().GetCgroupParent(); parent != "" {
		config.Annotations = maps.Clone(config.GetAnnotations())
		if config.Annotations == nil {
			config.Annotations = map[string]string{}
		}
		config.Annotations[annotationCgroup] = parent
	}
	return config
}

// CreateContainer implements internalapi.RuntimeService.
func (s runtimeService) CreateContainer(ctx context.Context, sandbox string, config *runtimeapi.ContainerConfig, sandboxConfig *runtimeapi.PodSandboxConfig) (string, error) {
	l, err := s.current()
	if err != nil {
		return "", err
	}
	config = proto.Clone(config).(*runtimeapi.ContainerConfig)
	config.Labels = s.mine(config.GetLabels())
	return l.runtime.CreateContainer(quiet(ctx), sandbox, config, s.owned(sandboxConfig))
}

// ListContainers implements internalapi.RuntimeService.
func (s runtimeService) ListContainers(ctx context.Context, filter *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error) {
	l, err := s.current()
	if err != nil {
		return nil, err
	}
	return l.runtime.ListContainers(quiet(ctx), &runtimeapi.ContainerFilter{
		Id: filter.GetId(), State: filter.GetState(), PodSandboxId: filter.GetPodSandboxId(), LabelSelector: s.mine(filter.GetLabelSelector()),
	})
}

// AllContainers lists everyone's containers, whose images are in use.
func (c *Client) AllContainers(ctx context.Context) ([]*runtimeapi.Container, error) {
	l, err := c.current()
	if err != nil {
		return nil, err
	}
	return l.runtime.ListContainers(quiet(ctx), nil)
}

// ListPodSandbox implements internalapi.RuntimeService.
func (s runtimeService) ListPodSandbox(ctx context.Context, filter *runtimeapi.PodSandboxFilter) ([]*runtimeapi.PodSandbox, error) {
	l, err := s.current()
	if err != nil {
		return nil, err
	}
	return l.runtime.ListPodSandbox(quiet(ctx), &runtimeapi.PodSandboxFilter{
		Id: filter.GetId(), State: filter.GetState(), LabelSelector: s.mine(filter.GetLabelSelector()),
	})
}

// ListContainerStats implements internalapi.RuntimeService.
func (s runtimeService) ListContainerStats(ctx context.Context, filter *runtimeapi.ContainerStatsFilter) ([]*runtimeapi.ContainerStats, error) {
	l, err := s.current()
	if err != nil {
		return nil, err
	}
	return l.runtime.ListContainerStats(quiet(ctx), &runtimeapi.ContainerStatsFilter{
		Id: filter.GetId(), PodSandboxId: filter.GetPodSandboxId(), LabelSelector: s.mine(filter.GetLabelSelector()),
	})
}

// ListPodSandboxStats implements internalapi.RuntimeService.
func (s runtimeService) ListPodSandboxStats(ctx context.Context, filter *runtimeapi.PodSandboxStatsFilter) ([]*runtimeapi.PodSandboxStats, error) {
	l, err := s.current()
	if err != nil {
		return nil, err
	}
	return l.runtime.ListPodSandboxStats(quiet(ctx), &runtimeapi.PodSandboxStatsFilter{
		Id: filter.GetId(), LabelSelector: s.mine(filter.GetLabelSelector()),
	})
}
