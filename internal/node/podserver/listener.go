package podserver

import (
	"errors"
	"net"
	"os"
	"path/filepath"

	"errand.dev/errand/internal/connections"
)

// listener is a unix socket that nobody but its owner can open.
type listener struct {
	*connections.Listener
	path string
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
	return &listener{connections.Track(l), path}, nil
}

// Close stops listening and removes the socket.
func (l *listener) Close() error {
	err := l.Listener.Close()
	if errors.Is(err, net.ErrClosed) {
		return nil // closed before: whoever has the name now is another
	}
	return errors.Join(err, os.Remove(l.path))
}
