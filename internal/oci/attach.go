package oci

import (
	"context"
	"os"

	"errand.dev/errand/internal/oci/shimapi"
)

// Attach implements Runtime.
func (c *Client) Attach(ctx context.Context, id string, req AttachRequest) (Attachment, error) {
	wire := shimapi.Attach{ID: id, Stdin: req.Stdin, Stdout: req.Stdout != nil, Stderr: req.Stderr != nil}
	var fds []int
	for _, f := range []*os.File{req.Stdout, req.Stderr} {
		if f != nil {
			fds = append(fds, int(f.Fd()))
		}
	}
	l, err := c.open(ctx, shimapi.OpAttach, id, wire, fds...)
	if err != nil {
		return nil, err
	}
	got, err := l.next(nil)
	if err != nil {
		l.Close()
		return nil, explain(ctx, err)
	}
	l.unwatch() // ctx is about attaching; staying attached is Wait's and Close's
	a := &attachment{link: l, input: takeFile(got, "stdin"), ended: make(chan struct{})}
	go a.follow()
	return a, nil
}

type attachment struct {
	link  *link
	input *os.File
	ended chan struct{} // closed once err is set
	err   error
}

func (a *attachment) follow() {
	defer close(a.ended)
	_, err := a.link.next(nil)
	a.err = explain(context.Background(), err)
	a.link.Close()
}

func (a *attachment) Input() *os.File { return a.input }

func (a *attachment) Wait(ctx context.Context) error {
	select {
	case <-a.ended:
		return a.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (a *attachment) Close() error { return a.link.Close() }
