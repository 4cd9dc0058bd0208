package criclient

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	remote "k8s.io/cri-client/pkg"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"errand.dev/errand/internal/cri/cgroups"
)

const (
	// requestTimeout bounds one call, as the kubelet's runtimeRequestTimeout.
	requestTimeout = 2 * time.Minute
	// Delays between attempts to connect to a runtime that isn't there, and to
	// use one that is there and not yet ready.
	retryFirst = 100 * time.Millisecond
	retryLast  = 3 * time.Second
	// connectTimeout is how long gRPC waits for a connection before it complains
	// and waits anew.
	connectTimeout = 10 * time.Minute
)

// Config is what a Client needs.
type Config struct {
	// Endpoint is the runtime's socket, unix:///absolute/path; ImageEndpoint that
	// of its image service.
	Endpoint, ImageEndpoint string
	// Owner is the value of LabelOwner on all that is this errand's.
	Owner string
	// Cgroups is where pods' cgroups are made.
	Cgroups *cgroups.Tree
	// Changed, if set, is called whenever the runtime has come or gone. It must
	// not wait.
	Changed func()
	// Clock defaults to the real one.
	Clock clock.Clock
}

// Client is a container runtime behind a socket. Make it with New and run it
// once; all other methods may be called concurrently, at any time.
type Client struct {
	cfg  Config
	conn *grpc.ClientConn // carries no calls: by its state the runtime is seen to come and go
	// settled is closed once it is known for the first time whether the runtime is
	// there.
	settled    chan struct{}
	settleOnce sync.Once
	tellOnce   sync.Once // that there are no events

	mu      sync.Mutex
	link    *link         // nil while the runtime is away
	err     error         // why it is
	changed chan struct{} // closed when link changes
}

// link is the runtime from its coming to its going.
type link struct {
	runtime internalapi.RuntimeService
	images  internalapi.ImageManagerService
	// gone is closed when the runtime has gone.
	gone chan struct{}
	// silent tells that the runtime has no events.
	silent bool
}

// New returns a Client. It doesn't touch the socket, which Run does.
func New(cfg Config) (*Client, error) {
	if cfg.Owner == "" || cfg.Cgroups == nil {
		return nil, errors.New("criclient: a field of Config isn't set")
	}
	if cfg.ImageEndpoint == "" {
		cfg.ImageEndpoint = cfg.Endpoint
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	path, err := SocketPath(cfg.Endpoint)
	if err != nil {
		return nil, err
	}
	if _, err := SocketPath(cfg.ImageEndpoint); err != nil {
		return nil, err
	}
	c := &Client{cfg: cfg, settled: make(chan struct{}), changed: make(chan struct{})}
	c.err = c.unavailable(errors.New("it hasn't answered yet"))
	retry := grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: connectTimeout}
	retry.Backoff.BaseDelay, retry.Backoff.MaxDelay = retryFirst, retryLast
	c.conn, err = grpc.NewClient("passthrough:///"+path,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority("localhost"),
		grpc.WithContextDialer(c.dial),
		grpc.WithConnectParams(retry),
		grpc.WithIdleTimeout(0),
	)
	return c, err
}

// dial tries until somebody listens, or ctx ends: gRPC would log each failure.
func (c *Client) dial(ctx context.Context, path string) (net.Conn, error) {
	for delay := retryFirst; ; delay = min(2*delay, retryLast) {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
		if err == nil {
			return conn, nil
		}
		c.lose(err)
		c.settle()
		select {
		case <-ctx.Done():
			return nil, err
		case <-c.cfg.Clock.After(delay):
		}
	}
}

// Run keeps the connection until ctx ends, then closes it and returns nil.
func (c *Client) Run(ctx context.Context) error {
	defer func() { _ = c.conn.Close() }() // carries nothing
	defer c.lose(errors.New("errand is stopping"))
	for {
		state := c.conn.GetState()
		switch state {
		case connectivity.Ready:
			c.take(ctx)
		case connectivity.Idle:
			if c.Err() == nil {
				c.lose(errors.New("it closed the connection"))
			}
			c.conn.Connect()
		case connectivity.TransientFailure:
			c.lose(errors.New("it doesn't answer, or doesn't speak gRPC"))
			c.settle()
		}
		if !c.conn.WaitForStateChange(ctx, state) {
			return nil
		}
	}
}

// take makes the runtime usable, as soon as it is ready for that.
func (c *Client) take(ctx context.Context) {
	ctx, cancel := context.WithCancel(quiet(ctx))
	defer cancel()
	go func() { // a call to a runtime that is starting may take its time
		if c.conn.WaitForStateChange(ctx, connectivity.Ready) {
			cancel()
		}
	}()
	for delay := retryFirst; ; delay = min(2*delay, retryLast) {
		l, err := c.open(ctx)
		if err == nil {
			c.found(l)
			c.settle()
			return
		}
		if ctx.Err() != nil {
			return
		}
		c.lose(err)
		if status.Code(err) != codes.Unavailable { // else it is only just starting
			c.settle()
		}
		select {
		case <-ctx.Done():
			return
		case <-c.cfg.Clock.After(delay):
		}
	}
}

// open connects, and looks whether the runtime can be used.
func (c *Client) open(ctx context.Context) (*link, error) {
	runtime, err := remote.NewRemoteRuntimeServiceBuilder().WithEndpoint(c.cfg.Endpoint).
		WithConnectionTimeout(requestTimeout).WithTracerProvider(nil).Build(ctx)
	if err != nil {
		return nil, err
	}
	l := &link{runtime: runtime, gone: make(chan struct{})}
	l.images, err = remote.NewRemoteImageServiceBuilder().WithEndpoint(c.cfg.ImageEndpoint).
		WithConnectionTimeout(requestTimeout).WithTracerProvider(nil).Build(ctx)
	if err == nil {
		err = suits(ctx, runtime)
	}
	if err != nil {
		return nil, errors.Join(err, l.close(ctx))
	}
	return l, nil
}

// suits says why a runtime can't be used, if it can't.
func suits(ctx context.Context, runtime internalapi.RuntimeService) error {
	config, err := runtime.RuntimeConfig(ctx)
	if status.Code(err) == codes.Unimplemented {
		return errors.New("it doesn't know the CRI's RuntimeConfig: it must be containerd 2.0, CRI-O 1.28 or newer")
	}
	if err != nil {
		return fmt.Errorf("ask for its cgroup driver: %w", err)
	}
	if config.GetLinux().GetCgroupDriver() != runtimeapi.CgroupDriver_CGROUPFS {
		return errors.New("its cgroup driver is systemd, with which pods' limits can't be set: configure cgroupfs " +
			"(containerd: SystemdCgroup = false in the runtime's options; CRI-O: cgroup_manager = \"cgroupfs\", conmon_cgroup = \"pod\") and restart it")
	}
	return nil
}

func (l *link) close(ctx context.Context) error {
	err := l.runtime.Close(ctx)
	if l.images != nil {
		err = errors.Join(err, l.images.Close(ctx))
	}
	return err
}

// found makes a runtime known.
func (c *Client) found(l *link) {
	c.mu.Lock()
	c.link, c.err = l, nil
	c.announce()
	c.mu.Unlock()
	c.tell()
}

// lose notes that the runtime is away, and why.
func (c *Client) lose(err error) {
	c.mu.Lock()
	l := c.link
	c.link, c.err = nil, c.unavailable(err)
	if l != nil {
		close(l.gone)
		c.announce()
	}
	c.mu.Unlock()
	if l != nil {
		_ = l.close(context.Background()) // the other side has gone
		c.tell()
	}
}

// announce wakes all who wait. It is called with mu held.
func (c *Client) announce() {
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *Client) tell() {
	if c.cfg.Changed != nil {
		c.cfg.Changed()
	}
}

func (c *Client) settle() { c.settleOnce.Do(func() { close(c.settled) }) }

// Settled is closed once it is known for the first time whether the runtime can
// be used.
func (c *Client) Settled() <-chan struct{} { return c.settled }

// Err is why the runtime can't be used now, nil if it can. Its code is
// Unavailable.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

func (c *Client) unavailable(err error) error {
	return &unavailableError{fmt.Errorf("the container runtime at %s can't be used: %w", c.cfg.Endpoint, err)}
}

// unavailableError has the code Unavailable, and no more in its words than says it.
type unavailableError struct{ error }

// GRPCStatus gives package status the code.
func (e *unavailableError) GRPCStatus() *status.Status {
	return status.New(codes.Unavailable, e.Error())
}

func (e *unavailableError) Unwrap() error { return e.error }

// current returns the runtime, or why there is none.
func (c *Client) current() (*link, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.link, c.err
}

// await returns the runtime once it is there; an error is that of ctx.
func (c *Client) await(ctx context.Context) (*link, error) {
	for {
		c.mu.Lock()
		l, changed := c.link, c.changed
		c.mu.Unlock()
		if l != nil {
			return l, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// quiet keeps the CRI's client from logging errors that it also returns.
func quiet(ctx context.Context) context.Context { return klog.NewContext(ctx, logr.Discard()) }
