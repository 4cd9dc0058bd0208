package criserver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// scheme begins an endpoint's address, as in the kubelet's
// --container-runtime-endpoint and in crictl's --runtime-endpoint.
const scheme = "unix://"

// maxSocketPath is the longest path in bytes that a unix socket may have
// (sun_path, less the NUL at its end).
const maxSocketPath = 107

// mode of the socket: whoever may connect has the host's root.
const socketMode = 0o600

// SocketPath is the path in an endpoint such as unix:///run/errand/cri.sock, or
// says what is wrong with the endpoint.
func SocketPath(endpoint string) (string, error) {
	path, ok := strings.CutPrefix(endpoint, scheme)
	switch {
	case !ok:
		return "", fmt.Errorf("%q is not the address of a unix socket, such as %s/run/errand/cri.sock", endpoint, scheme)
	case !filepath.IsAbs(path):
		return "", fmt.Errorf("%q: the socket's path must be absolute, as in %s/run/errand/cri.sock (three slashes)", endpoint, scheme)
	case len(path) > maxSocketPath:
		return "", fmt.Errorf("%q: the socket's path has %d bytes, and may have %d: choose a shorter one", endpoint, len(path), maxSocketPath)
	}
	return path, nil
}

// Endpoint is the address of a socket: the reverse of SocketPath.
func Endpoint(path string) string { return scheme + path }

// ServedError says that another process serves on the socket.
type ServedError struct {
	Path string
	// PID and Name are those of the process; 0 where it can't be told.
	PID  int
	Name string
}

func (e *ServedError) Error() string {
	who := "another process"
	if e.PID != 0 {
		who = fmt.Sprintf("%s (pid %d)", e.Name, e.PID)
	}
	return fmt.Sprintf("%s serves on the socket %s already: stop it first, or listen on another socket", who, e.Path)
}

// listen makes the socket, which only its owner may open. One that nobody
// listens on any more is replaced; of one that is served, or of a file that is
// no socket, nothing is touched.
func listen(ctx context.Context, path string) (net.Listener, error) {
	unlock, err := lockDir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := removeStale(ctx, path); err != nil {
		return nil, err
	}
	// A socket has the mode that it has before it is bound: at no moment may
	// others connect.
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		if cerr := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), socketMode) }); cerr != nil {
			return cerr
		}
		return err
	}}
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on the socket %s: %w", path, err)
	}
	return l, nil
}

// lockDir keeps others from looking for a stale socket in a directory at the
// same moment: both would find one, and the second remove the first's.
func lockDir(dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the socket's directory %s doesn't exist: make it first", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("open the socket's directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock the socket's directory %s: %w", dir, err), f.Close())
	}
	return func() { f.Close() }, nil //nolint:errcheck // nothing was written
}

func removeStale(ctx context.Context, path string) error {
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("look for a socket at %s: %w", path, err)
	case st.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("there is a file at %s that is no socket: remove it, or listen on another path", path)
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err == nil {
		defer conn.Close() //nolint:errcheck // nothing was said
		return servedBy(path, conn)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("find out who serves on the socket %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove a socket that nobody serves any more: %w", err)
	}
	return nil
}

// servedBy asks the kernel who is at the other end.
func servedBy(path string, conn net.Conn) error {
	served := &ServedError{Path: path}
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return served
	}
	_ = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			served.PID = int(cred.Pid)
		}
	})
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", served.PID))
	if err != nil {
		served.PID = 0
		return served
	}
	served.Name = strings.TrimSpace(string(comm))
	return served
}
