package cri

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
)

const portForwardDial = 10 * time.Second

func (s *Service) readySandbox(id string) (*sandbox, error) {
	sb, err := s.sandbox(id)
	if err != nil {
		return nil, err
	}
	if phase, _ := sb.state(); phase != sandboxReady {
		return nil, fmt.Errorf("%s is %s: %w", sb.what(), phase, errdefs.ErrFailedPrecondition)
	}
	return sb, nil
}

// PortForward joins a stream to a port on the sandbox's loopback, IPv4 or IPv6,
// until both sides have ended. It fails if it can't. However a connection that was
// made ends, such as by a reset, is between its two ends, and no error: kubectl
// would end all others, too.
func (r streamRuntime) PortForward(ctx context.Context, id string, port int32, stream io.ReadWriteCloser) error {
	sb, err := r.s.readySandbox(id)
	if err != nil {
		return err
	}
	conn, err := r.s.dial(sb, port)
	if err != nil {
		return fmt.Errorf("failed to connect to localhost:%d inside sandbox %q: %w", port, sb.id, err)
	}
	stop := context.AfterFunc(ctx, func() {
		conn.Close()   //nolint:errcheck // ends both copies
		stream.Close() //nolint:errcheck // ends both copies
	})
	defer stop()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_, _ = io.Copy(conn, stream)
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.CloseWrite()
		}
	}()
	// The pod's side decides when it's over: a client may keep its stream open.
	_, _ = io.Copy(stream, conn)
	_, _ = conn.Close(), stream.Close()
	<-sent
	return nil
}

// dial connects from inside of the sandbox's network namespace: the socket is
// made there, and stays of it.
func (s *Service) dial(sb *sandbox, port int32) (net.Conn, error) {
	var conn net.Conn
	connect := func() error {
		var errs []error
		for _, host := range []string{"127.0.0.1", "::1"} {
			c, err := net.DialTimeout("tcp", net.JoinHostPort(host, strconv.Itoa(int(port))), portForwardDial)
			if err == nil {
				conn = c
				return nil
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	}
	if sb.hostNetwork() {
		err := connect()
		return conn, err
	}
	err := s.cfg.Namespaces.Run(sb.id, connect)
	return conn, err
}
