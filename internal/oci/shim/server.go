package shim

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"errand.dev/errand/internal/oci/shimapi"
)

// requestTimeout bounds how long a client may take to say what it wants.
const requestTimeout = 10 * time.Second

func listen(path string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := bindAndListen(fd, path); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// accept serves every connection of a client that may.
func (s *Shim) accept(listener *os.File) error {
	raw, err := listener.SyscallConn()
	if err != nil {
		return err
	}
	for {
		var fd int
		var acceptErr error
		err := raw.Read(func(l uintptr) bool {
			fd, _, acceptErr = unix.Accept4(int(l), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			return !errors.Is(acceptErr, unix.EAGAIN)
		})
		switch {
		case err != nil:
			return fmt.Errorf("accept: %w", err)
		case errors.Is(acceptErr, unix.EMFILE) || errors.Is(acceptErr, unix.ENFILE):
			// The client waits in the backlog until a call in flight has given back its descriptors.
			s.log.Printf("accept: %v", acceptErr)
			time.Sleep(100 * time.Millisecond)
		case acceptErr == nil:
			go s.serve(fd)
		}
	}
}

func (s *Shim) serve(fd int) {
	f := os.NewFile(uintptr(fd), "client")
	defer f.Close()
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil || (cred.Uid != 0 && int(cred.Uid) != os.Geteuid()) {
		return
	}
	conn, err := shimapi.NewConn(f)
	if err != nil {
		return
	}
	if err := s.handshake(conn); err != nil {
		if !errors.Is(err, errNoVersion) {
			s.log.Printf("client %d: %v", cred.Pid, err)
		}
		return
	}
	var req shimapi.Request
	fds, err := conn.Recv(&req)
	if err != nil {
		return // only wanted to know whether we are here
	}
	_ = conn.SetDeadline(time.Time{})
	call := &call{conn: conn, op: req.Op, body: req.Body, fds: fds}
	err = s.dispatch(call)
	shimapi.CloseFDs(call.fds)
	if err != nil {
		var e *shimapi.Error
		if !errors.As(err, &e) {
			e = &shimapi.Error{Code: shimapi.CodeInternal, Message: err.Error()}
		}
		_ = conn.Send(shimapi.Response{Error: e})
	}
}

var errNoVersion = errors.New("no common version of the protocol")

func (s *Shim) handshake(conn *shimapi.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(requestTimeout)); err != nil {
		return err
	}
	var client shimapi.Hello
	if err := conn.RecvNoFDs(&client); err != nil {
		return err
	}
	own := shimapi.Hello{
		Min: shimapi.MinVersion, Max: shimapi.MaxVersion,
		Instance: s.instance, Pid: os.Getpid(), Build: s.cfg.Build,
	}
	own.Version = shimapi.Negotiate(client, own)
	if err := conn.Send(own); err != nil {
		return err
	}
	if own.Version == 0 {
		return errNoVersion
	}
	return nil
}

// call is one request on its connection.
type call struct {
	conn *shimapi.Conn
	op   shimapi.Op
	body json.RawMessage
	fds  []int // closed at the end, as far as they are still here
}

// decode decodes the request's body.
func (c *call) decode(v any) error {
	if err := json.Unmarshal(c.body, v); err != nil {
		return errorf(shimapi.CodeInvalid, "malformed %s request: %v", c.op, err)
	}
	return nil
}

// reply answers the request, with descriptors as needed.
func (c *call) reply(v any, fds ...int) error {
	var res shimapi.Response
	if v != nil {
		body, err := json.Marshal(v)
		if err != nil {
			return err
		}
		res.Body = body
	}
	// A client that doesn't read its answers isn't waited for.
	_ = c.conn.SetWriteDeadline(time.Now().Add(requestTimeout))
	return c.conn.Send(res, fds...)
}

// gone is closed when the client hangs up. It mustn't send anything any more.
func (c *call) gone() <-chan struct{} {
	ch := make(chan struct{})
	go func() {
		_ = c.conn.RecvNoFDs(&struct{}{})
		close(ch)
	}()
	return ch
}
