package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"

	"errand.dev/errand/internal/portholder"
)

// Listen opens a TCP listener for Config.Listener at host:port; port 0 takes
// any free one. An error says who has the port, and what to do.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s is taken by %s: stop it, or choose another address with --listen; port 0 takes any free one: %w",
			address, portholder.Find("/", address), err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("%s isn't an address of this machine: choose another with --listen: %w", address, err)
	case err != nil:
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	return l, nil
}

// listen opens the server's TCP listener, unless it was given one.
func (c *completedConfig) listen(ctx context.Context) (net.Listener, error) {
	if c.Listener != nil {
		return c.Listener, nil
	}
	return Listen(ctx, c.Listen)
}

// joinListeners makes one listener of several; the first one's address is its
// own. Closing it closes all.
func joinListeners(first net.Listener, more []net.Listener) net.Listener {
	if len(more) == 0 {
		return first
	}
	j := &joinedListener{
		Listener: first,
		all:      append([]net.Listener{first}, more...),
		conns:    make(chan accepted),
		closed:   make(chan struct{}),
	}
	for _, l := range j.all {
		go j.accept(l)
	}
	return j
}

type accepted struct {
	conn net.Conn
	err  error
}

type joinedListener struct {
	net.Listener
	all    []net.Listener
	conns  chan accepted
	closed chan struct{}
	once   sync.Once
}

func (j *joinedListener) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		select {
		case j.conns <- accepted{conn, err}:
		case <-j.closed:
			if conn != nil {
				_ = conn.Close() // nobody is left to tell
			}
			return
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
	}
}

// Accept implements net.Listener.
func (j *joinedListener) Accept() (net.Conn, error) {
	select {
	case a := <-j.conns:
		return a.conn, a.err
	case <-j.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (j *joinedListener) Close() error {
	var errs []error
	j.once.Do(func() {
		close(j.closed)
		for _, l := range j.all {
			errs = append(errs, l.Close())
		}
	})
	return errors.Join(errs...)
}

// names returns what clients may call the server by: its certificate's names
// and addresses.
func (c *completedConfig) names(listeners []net.Listener) (names []string, ips []net.IP) {
	names = []string{
		"localhost", c.hostname,
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
	}
	ips = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	for _, l := range listeners {
		addr, ok := l.Addr().(*net.TCPAddr)
		if !ok {
			continue
		}
		if addr.IP.IsUnspecified() {
			ips = append(ips, interfaceIPs()...)
		} else if !addr.IP.IsLoopback() {
			ips = append(ips, addr.IP)
		}
	}
	if host, _, err := net.SplitHostPort(c.Listen); err == nil && host != "" && net.ParseIP(host) == nil && host != "localhost" {
		names = append(names, host)
	}
	return names, ips
}

// interfaceIPs returns the machine's addresses, none if they can't be read: the
// certificate then lacks them and clients say so.
func interfaceIPs() []net.IP {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var ips []net.IP
	for _, addr := range addrs {
		if ipnet, ok := addr.(*net.IPNet); ok && ipnet.IP.IsGlobalUnicast() {
			ips = append(ips, ipnet.IP)
		}
	}
	return ips
}

// reachableAddr is where a client on this machine reaches the listener.
func reachableAddr(l net.Listener) string {
	addr, ok := l.Addr().(*net.TCPAddr)
	if !ok || !addr.IP.IsUnspecified() {
		return l.Addr().String()
	}
	return net.JoinHostPort("127.0.0.1", fmt.Sprint(addr.Port))
}
