// Package connections keeps account of the connections that a server has accepted, also of those that net/http has handed to a stream
// and forgotten, so that all can be cut, and closes each in a way that what was sent last arrives.
//
// A socket that is closed while input is left in it, or comes afterwards, is reset by the kernel. The peer, who has sent more than
// anybody wanted, then fails to write, and may never read the answer that was on its way: the end of a command's output, and its exit code.
package connections

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// lingerTime bounds how long the input of a closed connection is read: a peer that has read the end closes its side at once.
const lingerTime = 10 * time.Second

// Listener knows the connections that it has accepted and that aren't closed.
type Listener struct {
	net.Listener

	mu    sync.Mutex
	conns map[*conn]struct{} // nil once cut

	lingering sync.WaitGroup
}

// Track returns a Listener in the place of l.
func Track(l net.Listener) *Listener {
	return &Listener{Listener: l, conns: map[*conn]struct{}{}}
}

// Accept implements net.Listener. Closing what it returns ends the output, and the connection goes once the peer has ended its own,
// or some seconds later; whoever reads or writes gets net.ErrClosed meanwhile.
func (l *Listener) Accept() (net.Conn, error) {
	accepted, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: accepted, listener: l}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns == nil {
		return nil, errors.Join(net.ErrClosed, accepted.Close())
	}
	l.conns[c] = struct{}{}
	return c, nil
}

// Cut closes all connections at once, and those that are yet to be accepted.
func (l *Listener) Cut() error {
	l.mu.Lock()
	conns := l.conns
	l.conns = nil
	l.mu.Unlock()
	var errs []error
	for c := range conns {
		// Its reader sees that it is closed, and may have closed it itself.
		if err := c.Conn.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	l.lingering.Wait()
	return errors.Join(errs...)
}

// await runs what Cut waits for, unless that has been called.
func (l *Listener) await(f func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns != nil {
		l.lingering.Go(f)
	}
	return l.conns != nil
}

type conn struct {
	net.Conn
	listener *Listener

	reading sync.Mutex  // held by who reads
	ended   atomic.Bool // the peer has sent all that it ever will
	closed  atomic.Bool
}

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	if c.closed.Load() {
		return 0, net.ErrClosed
	}
	n, err := c.Conn.Read(p)
	switch {
	case err == nil:
	case c.closed.Load():
		err = net.ErrClosed // what called it off is a deadline
	case !errors.Is(err, os.ErrDeadlineExceeded):
		c.ended.Store(true)
	}
	return n, err
}

// Write implements net.Conn.
func (c *conn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if err != nil && c.closed.Load() {
		err = net.ErrClosed
	}
	return n, err
}

// SetDeadline implements net.Conn.
func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline implements net.Conn.
func (c *conn) SetReadDeadline(t time.Time) error {
	if c.closed.Load() {
		return net.ErrClosed
	}
	return c.Conn.SetReadDeadline(t)
}

// Close implements net.Conn.
func (c *conn) Close() error {
	if c.closed.Swap(true) {
		return net.ErrClosed
	}
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok || c.ended.Load() || half.CloseWrite() != nil {
		return c.end()
	}
	if err := c.Conn.SetDeadline(time.Unix(1, 0)); err != nil { // calls off who reads and writes
		return errors.Join(err, c.end())
	}
	if !c.listener.await(c.linger) {
		return c.end()
	}
	return nil
}

// linger reads what nobody wants until the peer has read what there was for it.
func (c *conn) linger() {
	c.reading.Lock() // the last reader has gone then, and no other comes
	err := c.Conn.SetReadDeadline(time.Now().Add(lingerTime))
	c.reading.Unlock()
	if err == nil {
		_, _ = io.Copy(io.Discard, c.Conn) // however it ends
	}
	_ = c.end() // nobody is left to tell
}

func (c *conn) end() error {
	c.listener.mu.Lock()
	delete(c.listener.conns, c)
	c.listener.mu.Unlock()
	return c.Conn.Close()
}
