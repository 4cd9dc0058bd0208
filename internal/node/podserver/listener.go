package podserver

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"
)

// listener is a unix socket that nobody but its owner can open. It knows its
// connections, for net/http forgets those that it has handed to a stream.
type listener struct {
	net.Listener
	path string

	mu    sync.Mutex
	conns map[*conn]struct{} // nil once cut
}

type conn struct {
	net.Conn
	listener *listener
}

// listen makes the socket, in place of one that an earlier server left. It gets
// its mode before it gets its name.
func listen(path string) (*listener, error) {
	dir, err := os.MkdirTemp(filepath.Dir(path), ".s")
	if err != nil {
		return nil, err
	}
	temporary := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: temporary, Net: "unix"})
	if err != nil {
		return nil, errors.Join(err, os.Remove(dir))
	}
	l.SetUnlinkOnClose(false) // it would remove the temporary name
	err = errors.Join(os.Chmod(temporary, 0o600), os.Rename(temporary, path), os.Remove(dir))
	if err != nil {
		return nil, errors.Join(err, l.Close(), os.RemoveAll(dir))
	}
	return &listener{Listener: l, path: path, conns: map[*conn]struct{}{}}, nil
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
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

// Close stops listening and removes the socket.
func (l *listener) Close() error {
	err := l.Listener.Close()
	if errors.Is(err, net.ErrClosed) {
		return nil // closed before: whoever has the name now is another
	}
	return errors.Join(err, os.Remove(l.path))
}

// cut closes all connections.
func (l *listener) cut() error {
	l.mu.Lock()
	conns := l.conns
	l.conns = nil
	l.mu.Unlock()
	var errs []error
	for c := range conns {
		if err := c.Conn.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.listener.mu.Lock()
	delete(c.listener.conns, c)
	c.listener.mu.Unlock()
	return c.Conn.Close()
}
