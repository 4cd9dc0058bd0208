package shimapi

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"
)

// MaxFDs is the largest number of file descriptors that may travel with a frame.
const MaxFDs = 8

// Socket is what a Conn needs of a connected, non-blocking unix stream socket: *net.UnixConn and *os.File are such.
// (The shim leaves package net out: it would be a third of the program.)
type Socket interface {
	syscall.Conn
	io.Closer
	SetDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error
}

// Conn sends and receives frames with descriptors. One goroutine may send while another receives; Close ends both.
type Conn struct {
	sock Socket
	raw  syscall.RawConn
	fds  []int // received with the frame being read
	buf  []byte
	torn error // why a frame was sent in part only: nothing may follow it
}

// NewConn takes over sock.
func NewConn(sock Socket) (*Conn, error) {
	raw, err := sock.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &Conn{sock: sock, raw: raw}, nil
}

// Close closes the socket.
func (c *Conn) Close() error { return c.sock.Close() }

// SetDeadline bounds the calls in flight and later ones; the zero time means no bound.
func (c *Conn) SetDeadline(t time.Time) error { return c.sock.SetDeadline(t) }

// SetWriteDeadline bounds sending only.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.sock.SetWriteDeadline(t) }

// Send sends v as a frame, with fds (not closed). Errors: ErrFrame if v is too large, else the socket's.
func (c *Conn) Send(v any, fds ...int) error {
	if len(fds) > MaxFDs {
		return fmt.Errorf("%d descriptors with a frame, the limit is %d", len(fds), MaxFDs)
	}
	if c.torn != nil {
		return c.torn
	}
	frame, err := AppendFrame(c.buf[:0], v)
	if err != nil {
		return err
	}
	// A rare large frame mustn't stay with a connection that lives on.
	if c.buf = frame; cap(frame) > 64<<10 {
		c.buf = nil
	}
	var rights []byte
	if len(fds) > 0 {
		rights = syscall.UnixRights(fds...)
	}
	for len(frame) > 0 {
		n, err := c.sendmsg(frame, rights)
		if err != nil {
			c.torn = fmt.Errorf("send %T: %w", v, err)
			return c.torn
		}
		frame, rights = frame[n:], nil
	}
	return nil
}

func (c *Conn) sendmsg(p, rights []byte) (n int, err error) {
	werr := c.raw.Write(func(fd uintptr) bool {
		for {
			n, err = syscall.SendmsgN(int(fd), p, rights, nil, syscall.MSG_NOSIGNAL)
			if !errors.Is(err, syscall.EINTR) {
				return !errors.Is(err, syscall.EAGAIN)
			}
		}
	})
	if werr != nil {
		return 0, werr
	}
	return n, os.NewSyscallError("sendmsg", err)
}

// Recv receives a frame into v and returns the descriptors that came with it, close-on-exec, which are then the caller's.
// Errors: io.EOF if the peer hung up between frames, ErrFrame, or the socket's.
func (c *Conn) Recv(v any) ([]int, error) {
	payload, err := ReadFrame((*reader)(c))
	fds := c.fds
	c.fds = nil
	if err == nil {
		err = Decode(payload, v)
	}
	if err != nil {
		CloseFDs(fds)
		return nil, err
	}
	return fds, nil
}

// RecvNoFDs is Recv for messages that carry no descriptors: strays are closed.
func (c *Conn) RecvNoFDs(v any) error {
	fds, err := c.Recv(v)
	CloseFDs(fds)
	return err
}

// reader reads from the socket, keeping the descriptors that arrive on the way.
type reader Conn

func (r *reader) Read(p []byte) (n int, err error) {
	var oobn, flags int
	oob := make([]byte, syscall.CmsgSpace(MaxFDs*4))
	rerr := r.raw.Read(func(fd uintptr) bool {
		for {
			n, oobn, flags, _, err = syscall.Recvmsg(int(fd), p, oob, syscall.MSG_CMSG_CLOEXEC)
			if !errors.Is(err, syscall.EINTR) {
				return !errors.Is(err, syscall.EAGAIN)
			}
		}
	})
	if rerr != nil {
		return 0, rerr
	}
	if err != nil {
		return 0, os.NewSyscallError("recvmsg", err)
	}
	if oobn > 0 {
		fds, err := parseRights(oob[:oobn])
		r.fds = append(r.fds, fds...)
		if err != nil {
			return n, err
		}
	}
	if flags&syscall.MSG_CTRUNC != 0 || len(r.fds) > MaxFDs {
		return n, fmt.Errorf("%w: too many descriptors", ErrFrame)
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

func parseRights(oob []byte) (fds []int, err error) {
	msgs, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFrame, err)
	}
	for i := range msgs {
		got, err := syscall.ParseUnixRights(&msgs[i])
		if err != nil {
			return fds, fmt.Errorf("%w: %w", ErrFrame, err)
		}
		fds = append(fds, got...)
	}
	return fds, nil
}

// CloseFDs closes descriptors that nobody takes over.
func CloseFDs(fds []int) {
	for _, fd := range fds {
		_ = syscall.Close(fd)
	}
}
