package criclient

import (
	"context"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ContainerStatus implements internalapi.RuntimeService. What containerd says is
// amended where it isn't what happened.
func (s runtimeService) ContainerStatus(ctx context.Context, id string, verbose bool) (*runtimeapi.ContainerStatusResponse, error) {
	l, err := s.current()
	if err != nil {
		return nil, err
	}
	resp, err := l.runtime.ContainerStatus(quiet(ctx), id, verbose)
	if err != nil {
		return nil, err
	}
	amend(resp.GetStatus())
	return resp, nil
}

// amend has a container whose start was cut off, as errand was killed, before there
// was a process be one that was created and never started, whatever containerd
// calls it: it may be started anew.
//
// And none ends before it starts. The end is the time at which containerd's shim
// saw it, the start the time at which containerd itself came to write down that
// there had been one, which for a short run may be later.
//
// For a time that isn't known CRI-O has Go's zero time, as nanoseconds one in 1754.
func amend(c *runtimeapi.ContainerStatus) {
	c.StartedAt, c.FinishedAt = max(c.StartedAt, 0), max(c.FinishedAt, 0)
	switch {
	case interrupted(c):
		c.State, c.StartedAt, c.FinishedAt = runtimeapi.ContainerState_CONTAINER_CREATED, 0, 0
		c.ExitCode, c.Reason, c.Message = 0, "", ""
	case c.GetState() == runtimeapi.ContainerState_CONTAINER_EXITED && c.GetFinishedAt() > 0:
		c.StartedAt = min(c.StartedAt, c.FinishedAt)
	}
}

// interrupted tells whether containerd gave up making a container's task because
// its client had gone. Where it was only about to run the process, the words are
// others ("failed to start containerd task"), and it may have run.
func interrupted(c *runtimeapi.ContainerStatus) bool {
	return c.GetState() == runtimeapi.ContainerState_CONTAINER_EXITED && c.GetReason() == "StartError" &&
		strings.HasPrefix(c.GetMessage(), "failed to create containerd task: ") && strings.HasSuffix(strings.TrimSpace(c.GetMessage()), "context canceled")
}
