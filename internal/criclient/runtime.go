package criclient

import (
	"context"
	"time"

	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Runtime is the runtime's service, as far as it is this errand's.
func (c *Client) Runtime() internalapi.RuntimeService { return runtimeService{c} }

// runtimeService passes calls on to whatever runtime is there. What it adds
// stands in owned.go, podcgroup.go and events.go.
type runtimeService struct{ *Client }

var _ internalapi.RuntimeService = runtimeService{}

// Version implements internalapi.RuntimeService.
func (s runtimeService) Version(ctx context.Context, apiVersion string) (*runtimeapi.VersionResponse, error) {
	l, err := s.current()
	if err != nil {
		return nil, err
	}
	return l.runtime.Version(quiet(ctx), apiVersion)
}

// StartContainer implements internalapi.RuntimeService.
func (s runtimeService) StartContainer(ctx context.Context, id string) error {
	l, err := s.current()
	if err != nil {
		return err
	}
	return l.runtime.StartContainer(quiet(ctx), id)
}

// StopContainer implements internalapi.RuntimeService.
func (s runtimeService) StopContainer(ctx context.Context, id string, timeout int64) error {
	l, err := s.current()
	if err != nil {
		return err
	}
	return l.runtime.StopContainer(quiet(ctx), id, timeout)
}

// RemoveContainer implements internalapi.RuntimeService.
func (s runtimeService) RemoveContainer(ctx context.Context, id string) error {
	l, err := s.current()
	if err != nil {
		return err
	}
	return l.runtime.RemoveContainer(quiet(ctx), id)
}

// UpdateContainerResources implements internalapi.RuntimeService.
func (s runtimeService) UpdateContainerResources(ctx context.Context, id string, resources *runtimeapi.ContainerResources) error {
	l, err := s.current()
	if err != nil {
		return err
	}
	return l.runtime.UpdateContainerResources(quiet(ctx), id, resources)
}

// Exec implements internalapi.RuntimeService.
func (s runtimeService) Exec(ctx context.Context, request *runtimeapi.ExecRequest) (*runtimeapi.ExecResponse, error) {
	l, err := s.current()
	if err != nil {
		return nil, err
	}
	return l.runtime.Exec(quiet(ctx), request)
}

// Attach implements internalapi.RuntimeService.
func (s runtimeService) Attach(ctx context.Context, request *runtimeapi.AttachRequest) (*runtimeapi.AttachResponse, error) {
	l, err := s.current()
	if err != nil {
		return nil, err
	}
	return l.runtime.Attach(quiet(ctx), request)
}

// PortForward implements internalapi.RuntimeService.
func (s runtimeService) PortForward(ctx context.Context, request *runtimeapi.PortForwardRequest) (*runtimeapi.PortForwardResponse, error) {
	l, err := s.current()
	if err != nil {
		return nil, err
	}
	return l.runtime.PortForward(quiet(ctx), request)
}

// ReopenContainerLog implements internalapi.RuntimeService.
func (s runtimeService) ReopenContainerLog(ctx context.Context, id string) error {
	l, err := s.current()
	if err != nil {
		return err
	}
	return l.runtime.ReopenContainerLog(quiet(ctx), id)
}

// CheckpointContainer implements internalapi.RuntimeService.
func (s runtimeService) CheckpointContainer(ctx context.Context, request *runtimeapi.CheckpointContainerRequest) error {
	l, err := s.current()
	if err != nil {
		return err
	}
	return l.runtime.CheckpointContainer(quiet(ctx), request)
}

// CheckpointPod implements internalapi.RuntimeService.
func (s runtimeService) CheckpointPod(ctx context.Context, request *runtimeapi.CheckpointPodRequest) error {
	l, err := s.current()
	if err != nil {
		return err
	}
	return l.runtime.CheckpointPod(quiet(ctx), request)
}

// RestorePod implements internalapi.RuntimeService.
func (s runtimeService) RestorePod(ctx context.Context, request *runtimeapi.RestorePodRequest) (*runtimeapi.RestorePodResponse, error) {
	l, err := s.current()
	if err != nil {
		return nil, err
	}
	return l.runtime.RestorePod(quiet(ctx), request)
}

// PodSandboxStatus implements internalapi.RuntimeService.
func (s runtimeService) PodSandboxStatus(ctx context.Context, id string, verbose bool) (*runtimeapi.PodSandboxStatusResponse, error) {
	l, err := s.current()
	if err != nil {
		return nil, err
	}
	return l.runtime.PodSandboxStatus(quiet(ctx), id, verbose)
}

// ContainerStats implements internalapi.RuntimeService.
func (s runtimeService) ContainerStats(ctx context.Context, id string) (*runtimeapi.ContainerStats, error) {
	l, err := s.current()
	if err != nil {
		return nil, err
	}
	return l.runtime.ContainerStats(quiet(ctx), id)
}

// PodSandboxStats implements internalapi.RuntimeService.
func (s runtimeService) PodSandboxStats(ctx context.Context, id string) (*runtimeapi.PodSandboxStats, error) {
	l, err := s.current()
	if err != nil {
		return nil, err
	}
	return l.runtime.PodSandboxStats(quiet(ctx), id)
}

// ListMetricDescriptors implements internalapi.RuntimeService.
func (s runtimeService) ListMetricDescriptors(ctx context.Context) ([]*runtimeapi.MetricDescriptor, error) {
	l, err := s.current()
	if err != nil {
		return nil, err
	}
	return l.runtime.ListMetricDescriptors(quiet(ctx))
}

// ListPodSandboxMetrics implements internalapi.RuntimeService.
func (s runtimeService) ListPodSandboxMetrics(ctx context.Context) ([]*runtimeapi.PodSandboxMetrics, error) {
	l, err := s.current()
	if err != nil {
		return nil, err
	}
	return l.runtime.ListPodSandboxMetrics(quiet(ctx))
}

// UpdateRuntimeConfig implements internalapi.RuntimeService.
func (s runtimeService) UpdateRuntimeConfig(ctx context.Context, config *runtimeapi.RuntimeConfig) error {
	l, err := s.current()
	if err != nil {
		return err
	}
	return l.runtime.UpdateRuntimeConfig(quiet(ctx), config)
}

// Status implements internalapi.RuntimeService.
func (s runtimeService) Status(ctx context.Context, verbose bool) (*runtimeapi.StatusResponse, error) {
	l, err := s.current()
	if err != nil {
		return nil, err
	}
	return l.runtime.Status(quiet(ctx), verbose)
}

// RuntimeConfig implements internalapi.RuntimeService.
func (s runtimeService) RuntimeConfig(ctx context.Context) (*runtimeapi.RuntimeConfigResponse, error) {
	l, err := s.current()
	if err != nil {
		return nil, err
	}
	return l.runtime.RuntimeConfig(quiet(ctx))
}

// execGrace is what a runtime may take, beyond the command's timeout, to tell that
// it is over.
const execGrace = 2 * time.Second

// ExecSync implements internalapi.RuntimeService. containerd waits, for as long as
// it takes, for whatever a command that it has killed left with its output open:
// a probe shall not.
func (s runtimeService) ExecSync(ctx context.Context, id string, command []string, timeout time.Duration) (stdout, stderr []byte, err error) {
	l, err := s.current()
	if err != nil {
		return nil, nil, err
	}
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout+execGrace)
		defer cancel()
	}
	return l.runtime.ExecSync(quiet(ctx), id, command, timeout)
}

// Close implements internalapi.RuntimeService. The connection is Run's.
func (s runtimeService) Close(context.Context) error { return nil }
