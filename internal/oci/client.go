package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"errand.dev/errand/internal/oci/native"
	"errand.dev/errand/internal/oci/shimapi"
)

// Client is the Runtime that errand-shim provides.
type Client struct {
	cfg      Config
	handlers map[string]shimapi.Handler

	translator native.Translator
	cgroups    *native.Cgroups

	mu       sync.Mutex
	inFlight map[string]chan struct{} // Runs by ID; closed when they return
	err      error                    // see Err
	drained  bool
	started  bool // the shim that runs was started by this client
}

var _ Runtime = (*Client)(nil)

// Connect connects to the parent of containers in cfg.RuntimeDir and starts it if there is none. Any number of processes may do
// so at the same time. A parent of another build than cfg.ShimPath is replaced if it has no containers.
func Connect(ctx context.Context, cfg Config) (*Client, error) {
	cfg, handlers, err := cfg.complete()
	if err != nil {
		return nil, fmt.Errorf("invalid OCI runtime configuration: %w", err)
	}
	cgroups, err := native.NewCgroups()
	if err != nil {
		return nil, err
	}
	c := &Client{cfg: cfg, handlers: handlers, cgroups: cgroups, inFlight: map[string]chan struct{}{}}
	return c, c.adopt(ctx)
}

func (c *Client) socket() string { return filepath.Join(c.cfg.RuntimeDir, shimapi.SocketName) }

// link is the connection of one call.
type link struct {
	*shimapi.Conn
	hello   shimapi.Hello
	id      string // of the container that the call is about
	unwatch func() bool
}

// Close ends the call.
func (l *link) Close() error {
	l.unwatch()
	return l.Conn.Close()
}

// dial connects to a shim that runs. When ctx ends, the connection is closed.
func (c *Client) dial(ctx context.Context) (*link, error) {
	var d net.Dialer
	sock, err := d.DialContext(ctx, "unix", c.socket())
	if err != nil {
		return nil, err
	}
	conn, err := shimapi.NewConn(sock.(*net.UnixConn))
	if err != nil {
		sock.Close()
		return nil, err
	}
	return &link{Conn: conn, unwatch: context.AfterFunc(ctx, func() { conn.Close() })}, nil
}

// begin starts a call: it sends the request, and checks the version of the shim.
func (l *link) begin(op shimapi.Op, body any, fds ...int) error {
	raw, err := json.Marshal(body)
	if err != nil {
		return err
	}
	if err := l.Send(shimapi.Hello{Min: shimapi.MinVersion, Max: shimapi.MaxVersion}); err != nil {
		return err
	}
	if err := l.Send(shimapi.Request{Op: op, Body: raw}, fds...); err != nil {
		return err
	}
	if err := l.RecvNoFDs(&l.hello); err != nil {
		return err
	}
	if l.hello.Version == 0 {
		return fmt.Errorf("errand-shim %s (pid %d) speaks versions %d to %d of the protocol, this errand %d to %d: drain it, then it is replaced",
			l.hello.Build, l.hello.Pid, l.hello.Min, l.hello.Max, shimapi.MinVersion, shimapi.MaxVersion)
	}
	return nil
}

// next receives a response. If v isn't nil it gets the body, of which there is none where an older shim had nothing to say.
func (l *link) next(v any) (fds []int, err error) {
	var res shimapi.Response
	fds, err = l.Recv(&res)
	if err == nil && res.Error != nil {
		err = fromWire(l.id, res.Error)
	}
	if err == nil && v != nil && len(res.Body) > 0 {
		err = shimapi.Decode(res.Body, v)
	}
	if err != nil {
		shimapi.CloseFDs(fds)
		return nil, err
	}
	return fds, nil
}

// open begins a call, about the container id, with the shim, which is started if there is none.
func (c *Client) open(ctx context.Context, op shimapi.Op, id string, body any, fds ...int) (*link, error) {
	l, err := c.dial(ctx)
	if noShim(err) {
		if err := c.start(ctx); err != nil {
			return nil, err
		}
		l, err = c.dial(ctx)
	}
	if err != nil {
		return nil, explain(ctx, err)
	}
	l.id = id
	if err := l.begin(op, body, fds...); err != nil {
		l.Close()
		return nil, explain(ctx, err)
	}
	return l, nil
}

// call makes a call with one response, without descriptors.
func (c *Client) call(ctx context.Context, op shimapi.Op, id string, body, answer any) error {
	l, err := c.open(ctx, op, id, body)
	if err != nil {
		return err
	}
	defer l.Close()
	fds, err := l.next(answer)
	shimapi.CloseFDs(fds)
	return explain(ctx, err)
}

func (c *Client) simple(ctx context.Context, op shimapi.Op, id string, body any) error {
	return c.call(ctx, op, id, body, nil)
}

// noShim reports whether err says that nobody listens.
func noShim(err error) bool {
	return errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED)
}

// explain says what a broken connection means: ctx's end has closed it, or the shim's.
func explain(ctx context.Context, err error) error {
	var sys syscall.Errno
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, &sys):
		return fmt.Errorf("%w (%w)", ErrParentLost, err)
	}
	return err
}

// Signal implements Runtime.
func (c *Client) Signal(ctx context.Context, id string, sig syscall.Signal, all bool) error {
	return c.simple(ctx, shimapi.OpSignal, id, shimapi.Signal{ID: id, Signal: int(sig), All: all})
}

// Delete implements Runtime.
func (c *Client) Delete(ctx context.Context, id string) error {
	return c.simple(ctx, shimapi.OpDelete, id, shimapi.ContainerRef{ID: id})
}

// Update implements Runtime.
func (c *Client) Update(ctx context.Context, id string, r *specs.LinuxResources) error {
	raw, err := json.Marshal(r)
	if err != nil {
		return err
	}
	var left shimapi.Updated
	if err := c.call(ctx, shimapi.OpUpdate, id, shimapi.Update{ID: id, Resources: raw}, &left); err != nil {
		return err
	}
	if left.CgroupsPath == "" {
		return nil
	}
	if err := c.cgroups.Update(left.CgroupsPath, r); err != nil {
		return &RuntimeError{ID: id, Message: fmt.Sprintf("update failed: %v", err)}
	}
	return nil
}

// ReopenLog implements Runtime.
func (c *Client) ReopenLog(ctx context.Context, id string) error {
	return c.simple(ctx, shimapi.OpReopen, id, shimapi.ContainerRef{ID: id})
}

// List implements Runtime.
func (c *Client) List(ctx context.Context) ([]Status, error) {
	var all shimapi.Containers
	if err := c.call(ctx, shimapi.OpList, "", nil, &all); err != nil {
		return nil, err
	}
	list := make([]Status, 0, len(all.Containers))
	for _, w := range all.Containers {
		list = append(list, status(w))
	}
	return list, nil
}

func status(w shimapi.Container) Status {
	s := Status{ID: w.ID, Pid: w.Pid, State: w.State, StartedAt: w.StartedAt}
	if w.Exit != nil {
		s.ExitCode, s.ExitedAt, s.OOMKilled, s.Reason = w.Exit.Code, w.Exit.At, w.Exit.OOMKilled, w.Exit.Reason
	}
	return s
}

// Drain makes the parent refuse new containers and waits until it has stopped, which it does once no container runs; with kill
// it kills those that do. What has exited but isn't deleted is known to the parent's successor. Where no parent runs there is
// nothing to do. The client is of no more use afterwards: its calls return ErrDraining.
func (c *Client) Drain(ctx context.Context, kill bool) error {
	c.mu.Lock()
	c.drained = true
	c.mu.Unlock()
	return c.drain(ctx, kill)
}

// drain is Drain for a client that is of use afterwards.
func (c *Client) drain(ctx context.Context, kill bool) error {
	l, err := c.dial(ctx)
	if noShim(err) {
		return nil
	}
	if err != nil {
		return explain(ctx, err)
	}
	defer l.Close()
	if err := l.begin(shimapi.OpDrain, shimapi.Drain{Kill: kill}); err != nil {
		return explain(ctx, err)
	}
	ended := watchProcess(ctx, l.hello.Pid)
	_, err = l.next(nil)
	if err = explain(ctx, err); !errors.Is(err, ErrParentLost) {
		return err
	}
	if err := ended(); err != nil {
		return err
	}
	return c.removeCgroup(ctx)
}

// Err implements Runtime.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// cleanupTimeout bounds what is done after the caller's context has ended.
const cleanupTimeout = 30 * time.Second
