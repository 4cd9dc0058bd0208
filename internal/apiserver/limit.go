package apiserver

import (
	"errors"
	"net"
	"net/netip"
	"sync"
)

// maxConnsPerAddress is how many connections a pod may have open at once. A
// client needs one; what this is for is that no pod takes all descriptors of the
// process that has everybody's.
const maxConnsPerAddress = 256

// limitedListener closes at once what an address opens beyond its share.
type limitedListener struct {
	net.Listener
	max int
	// exempt, if valid, may have any number: the host's processes come by it.
	exempt netip.Addr

	mu   sync.Mutex
	open map[netip.Addr]int
}

func limitPerAddress(l net.Listener, most int, exempt netip.Addr) *limitedListener {
	return &limitedListener{Listener: l, max: most, exempt: exempt, open: map[netip.Addr]int{}}
}

// Accept implements net.Listener.
func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from, err := netip.ParseAddrPort(conn.RemoteAddr().String())
		if err != nil || from.Addr() == l.exempt {
			return conn, nil
		}
		if l.take(from.Addr()) {
			return &limitedConn{Conn: conn, giveBack: sync.OnceFunc(func() { l.give(from.Addr()) })}, nil
		}
		_ = conn.Close() // nothing was said
	}
}

func (l *limitedListener) take(addr netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[addr] >= l.max {
		return false
	}
	l.open[addr]++
	return true
}

func (l *limitedListener) give(addr netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[addr]--; l.open[addr] == 0 {
		delete(l.open, addr)
	}
}

type limitedConn struct {
	net.Conn
	giveBack func()
}

// CloseWrite ends the output, where the connection can.
func (c *limitedConn) CloseWrite() error {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok {
		return errors.ErrUnsupported
	}
	return half.CloseWrite()
}

// Close implements net.Conn.
func (c *limitedConn) Close() error {
	defer c.giveBack()
	return c.Conn.Close()
}
