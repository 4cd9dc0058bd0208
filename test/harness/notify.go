package harness

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// Notify is a socket as a service manager has one, by which a process says that
// it is ready (sd_notify(3)).
type Notify struct {
	conn *net.UnixConn
	path string
}

// ListenNotify makes one. Whoever makes it closes it, after the process's end:
// a service manager listens for as long as the service runs.
func ListenNotify() (*Notify, error) {
	dir, err := os.MkdirTemp("/tmp", "errand-notify-")
	if err != nil {
		return nil, fmt.Errorf("make a notify socket: %w", err)
	}
	path := filepath.Join(dir, "s")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make a notify socket: %w", err), os.RemoveAll(dir))
	}
	return &Notify{conn: conn, path: path}, nil
}

// Env is what tells the process of it.
func (n *Notify) Env() string { return "NOTIFY_SOCKET=" + n.path }

// Await returns once the process has said READY=1. An error tells that ctx has
// ended, or the socket was closed.
func (n *Notify) Await(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { n.conn.Close() })
	defer stop()
	buf := make([]byte, 4096)
	for {
		read, err := n.conn.Read(buf)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return errors.New("it ended")
		}
		for line := range strings.Lines(string(buf[:read])) {
			if strings.TrimSpace(line) == "READY=1" {
				return nil
			}
		}
	}
}

// Close takes it away; an Await returns.
func (n *Notify) Close() {
	n.conn.Close()
	os.RemoveAll(filepath.Dir(n.path))
}
