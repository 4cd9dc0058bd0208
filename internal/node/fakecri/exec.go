package fakecri

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ExecSync implements the CRI; the command's output is its error's text.
func (c *Client) ExecSync(ctx context.Context, id string, command []string, timeout time.Duration) (stdout, stderr []byte, err error) {
	var running *container
	var e Exec
	err = c.do("ExecSync", func(r *Runtime) error {
		k := r.containers[id]
		switch {
		case k == nil:
			return notFound("container", id)
		case k.status.State != runtimeapi.ContainerState_CONTAINER_RUNNING:
			return status.Errorf(codes.FailedPrecondition, "container %q is not running", id)
		}
		running = k
		e = Exec{UID: r.uidOf(k), Container: k.config.Metadata.Name, Attempt: k.config.Metadata.Attempt, Command: command}
		return nil
	})
	if err != nil || c.runtime.Exec == nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if timeout > 0 {
		timer := c.runtime.Clock.NewTimer(timeout)
		defer timer.Stop()
		go endWith(ctx, cancel, timer.C(), status.Error(codes.DeadlineExceeded, "the command's time is over"))
	}
	go endWith(ctx, cancel, running.ended, status.Error(codes.FailedPrecondition, "the container has ended"))
	go endWith(ctx, cancel, c.died, ErrDead)
	if err = c.runtime.Exec(ctx, e); ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		stdout = []byte(err.Error())
	}
	return stdout, nil, err
}

func endWith[T any](ctx context.Context, cancel context.CancelCauseFunc, ch <-chan T, cause error) {
	select {
	case <-ch:
		cancel(cause)
	case <-ctx.Done():
	}
}
