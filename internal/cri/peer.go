package cri

import (
	"context"
	"errors"
	"net"
	"os"
)

// A connection on which streams are served belongs to no HTTP request any more,
// and net/http doesn't tell when its peer goes. But something always reads from
// it, and so meets its end: watchedConn ends the context of what is served there.

// watchedListener accepts watchedConns.
type watchedListener struct{ net.Listener }

// Accept implements net.Listener.
func (l watchedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &watchedConn{Conn: c, gone: func() {}}, nil
}

// watchedConn calls gone, perhaps more than once, when its peer has sent all
// that it ever will, or can't be reached, and when it is closed.
type watchedConn struct {
	net.Conn
	gone func()
}

// untilPeerGoes is an http.Server's ConnContext: it is called before anything is
// read.
func untilPeerGoes(ctx context.Context, c net.Conn) context.Context {
	watched, ok := c.(*watchedConn)
	if !ok {
		return ctx
	}
	ctx, watched.gone = context.WithCancel(ctx)
	return ctx
}

// Read implements net.Conn.
func (c *watchedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	// A deadline in the past is how a pending read is called off.
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		c.gone()
	}
	return n, err
}

// Close implements net.Conn.
func (c *watchedConn) Close() error {
	c.gone()
	return c.Conn.Close()
}
