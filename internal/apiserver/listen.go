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

// joinedListener makes one listener of several; the first one's address is its
// own. Closing it closes all.
type joinedListener struct {
	net.Listener
	conns  chan accepted
	closed chan struct{}

	mu  sync.Mutex
	all []net.Listener // nil once closed
}

type accepted struct {
	conn net.Conn
	err  error
}

func newJoinedListener(first net.Listener) *joinedListener {
	j := &joinedListener{Listener: first, conns: make(chan accepted), closed: make(chan struct{})}
	j.add(first)
	return j
}

// add accepts from a further listener. One that comes too late is closed.
func (j *joinedListener) add(l net.Listener) {
	j.mu.Lock()
	defer j.mu.Unlock()
	select {
	case <-j.closed:
		_ = l.Close() // nobody is left to tell
		return
	default:
	}
	j.all = append(j.all, l)
	go j.accept(l)
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
	j.mu.Lock()
	defer j.mu.Unlock()
	var errs []error
	for _, l := range j.all {
		errs = append(errs, l.Close())
	}
	if j.all != nil {
		close(j.closed)
	}
	j.all = nil
	return errors.Join(errs...)
}

// names returns what clients may call the server by: its certificate's names
// and addresses.
func (c *completedConfig) names(l net.Listener) (names []string, ips []net.IP) {
	names = []string{
		"localhost", c.hostname,
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
	}
	ips = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	if c.serviceAddr.IsValid() {
		ips = append(ips, c.serviceAddr.AsSlice())
	}
	if addr, ok := l.Addr().(*net.TCPAddr); ok {
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

// port is the first listener's, which pods reach the API by as well.
func (s *Server) port() int32 {
	addr, ok := s.listeners.Addr().(*net.TCPAddr)
	if !ok {
		return 0
	}
	return int32(addr.Port)
}

// sharedAddr is where most clients reach the server: by what it listens on, but
// where that is loopback by the address that pods have for it, which is this
// machine's, too.
func (s *Server) sharedAddr() string {
	host, port, err := net.SplitHostPort(s.generic.ExternalAddress)
	if ip := net.ParseIP(host); err != nil || !ip.IsLoopback() || !s.cfg.serviceAddr.IsValid() {
		return s.generic.ExternalAddress
	}
	return net.JoinHostPort(s.cfg.serviceAddr.String(), port)
}
