package cri

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	utilexec "k8s.io/utils/exec"

	"errand.dev/errand/internal/oci"
)

const (
	// maxExecOutput is how much of each of an ExecSync's outputs is kept, in
	// bytes; the rest is dropped, as the CRI has it.
	maxExecOutput = 16 << 20
	// drainTime is how long output is waited for once the process has exited
	// and left its pipes to a child.
	drainTime = 250 * time.Millisecond
	// execStartTime is how long starting a command may take that has a timeout.
	// It isn't part of that: how busy the machine is says nothing of the command.
	execStartTime = time.Minute
)

// ExecSync runs a command in a running container and returns what it wrote. A
// command that fails gives a utilexec.CodeExitError beside its output, as the
// CRI's client in Kubernetes does. After the timeout, which counts from the
// command's start, it is killed with its process group; so it is when ctx or this
// process ends first. 0 means no timeout. Codes: NotFound, FailedPrecondition,
// DeadlineExceeded.
func (s *Service) ExecSync(ctx context.Context, id string, cmd []string, timeout time.Duration) (stdout, stderr []byte, err error) {
	c, err := s.running(id)
	if err != nil {
		return nil, nil, toStatus(fmt.Errorf("failed to exec in container: %w", err))
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	started := func() {}
	if timeout > 0 {
		timer := s.cfg.Clock.NewTimer(execStartTime + timeout)
		defer timer.Stop()
		started = func() { timer.Reset(timeout) }
		go func() {
			select {
			case <-timer.C():
				cancel(context.DeadlineExceeded)
			case <-ctx.Done():
			}
		}()
	}
	code, stdout, stderr, err := s.execOutput(ctx, c, cmd, started)
	if cause := context.Cause(ctx); cause != nil {
		err = fmt.Errorf("timeout %s exceeded or call cancelled: %w", timeout, cause)
	}
	if err != nil {
		return nil, nil, toStatus(fmt.Errorf("failed to exec in container: %w", err))
	}
	if code != 0 {
		return stdout, stderr, utilexec.CodeExitError{
			Err: fmt.Errorf("command '%s' exited with %d: %s", strings.Join(cmd, " "), code, stderr), Code: code,
		}
	}
	return stdout, stderr, nil
}

// execOutput calls started as soon as the command runs.
func (s *Service) execOutput(ctx context.Context, c *container, cmd []string, started func()) (code int, stdout, stderr []byte, err error) {
	var outs [2]outputPipe
	for i := range outs {
		if err := outs[i].open(); err != nil {
			for j := range i {
				outs[j].abandon()
			}
			return 0, nil, nil, err
		}
	}
	p, err := s.exec(ctx, c, cmd, oci.ExecRequest{Stdout: outs[0].w, Stderr: outs[1].w, Bound: true})
	var errs []error
	for i := range outs {
		errs = append(errs, outs[i].w.Close())
	}
	if err = errors.Join(append(errs, err)...); err != nil {
		for i := range outs {
			outs[i].r.Close() //nolint:errcheck // nothing was written
		}
		return 0, nil, nil, err
	}
	started()
	for i := range outs {
		outs[i].collect()
	}
	code, err = s.wait(ctx, p)
	for i := range outs {
		err = errors.Join(err, outs[i].end())
	}
	return code, outs[0].data, outs[1].data, err
}

// wait waits for a process and kills it when ctx ends first.
func (s *Service) wait(ctx context.Context, p oci.Process) (int, error) {
	defer p.Close() //nolint:errcheck // only stops following
	code, err := p.Wait(ctx)
	if ctx.Err() != nil {
		return 0, errors.Join(err, p.Signal(context.WithoutCancel(ctx), syscall.SIGKILL))
	}
	return code, err
}

// exec starts a process in a container: with the container's environment, user
// and rights.
func (s *Service) exec(ctx context.Context, c *container, cmd []string, req oci.ExecRequest) (oci.Process, error) {
	built, err := c.getSpec()
	if err != nil {
		return nil, err
	}
	process := *built.Process
	process.Args = cmd
	process.Terminal = req.Process != nil && req.Process.Terminal
	if process.Terminal {
		process.ConsoleSize = req.Process.ConsoleSize
	}
	req.Process = &process
	return s.cfg.Runtime.Exec(ctx, c.id, req)
}

// withTerminal asks exec for a terminal.
func withTerminal() *specs.Process { return &specs.Process{Terminal: true} }

// outputPipe collects what a process writes.
type outputPipe struct {
	r, w *os.File
	data []byte
	err  error
	done sync.WaitGroup
}

func (o *outputPipe) open() (err error) {
	if o.r, o.w, err = os.Pipe(); err != nil {
		return fmt.Errorf("make a pipe: %w", err)
	}
	return nil
}

func (o *outputPipe) abandon() {
	o.r.Close() //nolint:errcheck // nothing was written
	o.w.Close() //nolint:errcheck // nothing was written
}

func (o *outputPipe) collect() {
	o.done.Go(func() {
		o.data, o.err = io.ReadAll(io.LimitReader(o.r, maxExecOutput))
		switch {
		case o.err == nil:
			_, o.err = io.Copy(io.Discard, o.r)
		case errors.Is(o.err, os.ErrDeadlineExceeded):
			var left []byte
			left, o.err = io.ReadAll(leftIn(o.r))
			o.data = append(o.data, left...)[:min(len(o.data)+len(left), maxExecOutput)]
		}
	})
}

// end waits for the rest of the output.
func (o *outputPipe) end() error {
	// What is in the pipe by then is read all the same.
	if err := o.r.SetReadDeadline(time.Now().Add(drainTime)); err != nil {
		return err
	}
	o.done.Wait()
	err := o.err
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = nil
	}
	return errors.Join(err, o.r.Close())
}

// errStreams is what Exec, Attach and PortForward return without a listener.
func errStreams(err error) error {
	return status.Errorf(codes.Unavailable, "streams to containers can't be served: %v", err)
}
