package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"syscall"

	"errand.dev/errand/internal/oci/native"
	"errand.dev/errand/internal/oci/shimapi"
)

// Exec implements Runtime.
func (c *Client) Exec(ctx context.Context, id string, req ExecRequest) (Process, error) {
	spec, err := json.Marshal(req.Process)
	if err != nil {
		return nil, err
	}
	if req.Process == nil {
		return nil, fmt.Errorf("%w: exec in %s without a process", ErrInvalid, id)
	}
	wire := shimapi.Exec{ID: id, Process: spec, Terminal: req.Process.Terminal, Bound: req.Bound}
	// Whoever started the container starts the process, and only the shim knows who did.
	var not *native.Unsupported
	if wire.Launch, err = c.translator.Process(req.Process); err != nil && !errors.As(err, &not) {
		return nil, err
	}
	var files []*os.File
	if !wire.Terminal {
		null, err := openNull()
		if err != nil {
			return nil, err
		}
		defer null.Close()
		for _, f := range []*os.File{req.Stdin, req.Stdout, req.Stderr} {
			if f == nil {
				f = null
			}
			files = append(files, f)
		}
	} else if req.Stdin != nil || req.Stdout != nil || req.Stderr != nil {
		return nil, fmt.Errorf("%w: exec in %s with a terminal takes no files", ErrInvalid, id)
	}
	l, err := c.open(ctx, shimapi.OpExec, id, wire, descriptors(files)...)
	if err != nil {
		return nil, err
	}
	p := &process{client: c, container: id, link: l, ended: make(chan struct{})}
	fds, err := l.next(&p.started)
	if err != nil {
		l.Close()
		return nil, explain(ctx, err)
	}
	l.unwatch() // the process lives on when ctx, which is about starting it, has ended
	p.terminal = takeFile(fds, "pty")
	go p.follow()
	return p, nil
}

// descriptors makes files fit for a process that knows nothing of non-blocking files, and returns their descriptors.
func descriptors(files []*os.File) []int {
	var fds []int
	for _, f := range files {
		fd := int(f.Fd())
		_ = syscall.SetNonblock(fd, false)
		fds = append(fds, fd)
	}
	return fds
}

// takeFile makes a file of the first descriptor received, and closes others.
func takeFile(fds []int, name string) *os.File {
	if len(fds) == 0 {
		return nil
	}
	shimapi.CloseFDs(fds[1:])
	return os.NewFile(uintptr(fds[0]), name)
}

type process struct {
	client    *Client
	container string
	link      *link
	started   shimapi.Started
	terminal  *os.File

	ended chan struct{} // closed once exit or err is set
	exit  shimapi.Exit
	err   error
}

func (p *process) follow() {
	defer close(p.ended)
	_, err := p.link.next(&p.exit)
	p.err = explain(context.Background(), err)
	p.link.Close()
}

func (p *process) Pid() int { return p.started.Pid }

func (p *process) Terminal() *os.File { return p.terminal }

func (p *process) Wait(ctx context.Context) (int, error) {
	select {
	case <-p.ended:
		return p.exit.Code, p.err
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

func (p *process) Signal(ctx context.Context, sig syscall.Signal) error {
	return p.client.simple(ctx, shimapi.OpSignal, p.container, shimapi.Signal{ID: p.container, Signal: int(sig), Exec: p.Pid()})
}

func (p *process) Close() error { return p.link.Close() }
