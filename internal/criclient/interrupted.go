package criclient

import (
	"context"
	"strings"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ContainerStatus implements internalapi.RuntimeService. A container whose start was
// cut off, as errand was killed, before there was a process is one that was created
// and never started, whatever containerd calls it: it may be started anew.
func (s runtimeService) ContainerStatus(ctx context.Context, id string, verbose bool) (*runtimeapi.ContainerStatusResponse, error) {
	l, err := s.current()
	if err != nil {
		return nil, err
	}
	resp, err := l.runtime.ContainerStatus(quiet(ctx), id, verbose)
	if err != nil || !interrupted(resp.GetStatus()) {
		return resp, err
	}
	resp = proto.Clone(resp).(*runtimeapi.ContainerStatusResponse)
	c := resp.Status
	c.State, c.StartedAt, c.FinishedAt = runtimeapi.ContainerState_CONTAINER_CREATED, 0, 0
	c.ExitCode, c.Reason, c.Message = 0, "", ""
	return resp, nil
}

// interrupted tells whether containerd gave up making a container's task because
// its client had gone. Where it was only about to run the process, the words are
// others ("failed to start containerd task"), and it may have run.
func interrupted(c *runtimeapi.ContainerStatus) bool {
	return c.GetState() == runtimeapi.ContainerState_CONTAINER_EXITED && c.GetReason() == "StartError" &&
		strings.HasPrefix(c.GetMessage(), "failed to create containerd task: ") && strings.HasSuffix(strings.TrimSpace(c.GetMessage()), "context canceled")
}
