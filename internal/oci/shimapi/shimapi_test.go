package shimapi

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// pair returns two connected ends.
func pair(t *testing.T) (a, b *Conn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	var conns []*Conn
	for _, fd := range fds {
		c, err := NewConn(os.NewFile(uintptr(fd), "socket"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		conns = append(conns, c)
	}
	return conns[0], conns[1]
}

func TestFramesKeepTheirDescriptors(t *testing.T) {
	a, b := pair(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	sent := make(chan error, 1)
	go func() {
		sent <- errors.Join(
			a.Send(Request{Op: OpPing}),
			a.Send(Request{Op: OpExec}, int(r.Fd()), int(w.Fd())),
			a.Send(Request{Op: OpList}),
			a.Send(Request{Op: OpAttach}, int(w.Fd())))
	}()
	for _, want := range []struct {
		op  Op
		fds int
	}{{OpPing, 0}, {OpExec, 2}, {OpList, 0}, {OpAttach, 1}} {
		var req Request
		fds, err := b.Recv(&req)
		if err != nil {
			t.Fatal(err)
		}
		if req.Op != want.op || len(fds) != want.fds {
			t.Errorf("got %s with %d descriptors, want %s with %d", req.Op, len(fds), want.op, want.fds)
		}
		CloseFDs(fds)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
}

func TestRecvClosesStrayDescriptors(t *testing.T) {
	a, b := pair(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := a.Send(Hello{}, int(w.Fd())); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if err := b.RecvNoFDs(&Hello{}); err != nil {
		t.Fatal(err)
	}
	// The pipe ends only once nobody holds its write end any more.
	if n, err := r.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("read %d, %v: the descriptor has leaked", n, err)
	}
}

func TestLargeFrame(t *testing.T) {
	a, b := pair(t)
	want := Error{Message: strings.Repeat("x", 3<<20)}
	sent := make(chan error, 1)
	go func() { sent <- a.Send(want) }()
	var got Error
	if _, err := b.Recv(&got); err != nil {
		t.Fatal(err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Error("message changed on the way")
	}
	if err := a.Send(Error{Message: strings.Repeat("x", MaxFrame)}); !errors.Is(err, ErrFrame) {
		t.Errorf("too large a frame: %v", err)
	}
}

func TestHangUp(t *testing.T) {
	a, b := pair(t)
	a.Close()
	if _, err := b.Recv(&Hello{}); !errors.Is(err, io.EOF) {
		t.Errorf("got %v, want EOF", err)
	}
}

// TestTornFrame: a reader that doesn't read never takes the end of one frame for that of another.
func TestTornFrame(t *testing.T) {
	a, b := pair(t)
	sent := make(chan error, 1)
	go func() { sent <- a.Send(Error{Message: strings.Repeat("x", MaxFrame-100)}) }()
	// A first part has been sent, and the socket doesn't take the whole.
	if _, err := io.ReadFull((*reader)(b), make([]byte, headerLen)); err != nil {
		t.Fatal(err)
	}
	if err := a.SetWriteDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := <-sent; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("a full socket: %v", err)
	}
	if err := a.SetWriteDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if err := a.Send(Hello{}); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after a torn frame: %v", err)
	}
}

func TestReadFrame(t *testing.T) {
	for _, tc := range []struct {
		name, in string
		want     error
	}{
		{"nothing", "", io.EOF},
		{"half a header", "\x00\x00", io.ErrUnexpectedEOF},
		{"no payload", "\x00\x00\x00\x02", io.ErrUnexpectedEOF},
		{"half a payload", "\x00\x00\x00\x02{", io.ErrUnexpectedEOF},
		{"empty", "\x00\x00\x00\x00", ErrFrame},
		{"huge", "\xff\xff\xff\xff", ErrFrame},
		{"HTTP", "GET / HTTP/1.1\r\n", ErrFrame},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := ReadFrame(strings.NewReader(tc.in)); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

func FuzzReadFrame(f *testing.F) {
	frame, err := AppendFrame(nil, Request{Op: OpRun, Body: []byte(`{"id":"a"}`)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(frame)
	f.Add([]byte("\x00\x00\x00\x02{}"))
	f.Add([]byte("\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		payload, err := ReadFrame(r)
		if err != nil {
			return
		}
		if n := int(binary.BigEndian.Uint32(in)); len(payload) != n || r.Len() != len(in)-headerLen-n {
			t.Fatalf("a frame of %d: %d bytes returned, %d left of %d", n, len(payload), r.Len(), len(in))
		}
		var req Request
		if Decode(payload, &req) != nil {
			return
		}
		again, err := AppendFrame(nil, req)
		if err != nil {
			t.Fatal(err)
		}
		payload, err = ReadFrame(bytes.NewReader(again))
		if err != nil {
			t.Fatal(err)
		}
		var req2 Request
		if err := Decode(payload, &req2); err != nil {
			t.Fatal(err)
		}
		if req.Op != req2.Op {
			t.Fatal(cmp.Diff(req, req2))
		}
	})
}

func TestNegotiate(t *testing.T) {
	for _, tc := range []struct {
		client, shim Hello
		want         int
	}{
		{Hello{Min: 1, Max: 1}, Hello{Min: 1, Max: 1}, 1},
		{Hello{Min: 1, Max: 3}, Hello{Min: 1, Max: 2}, 2},
		{Hello{Min: 2, Max: 3}, Hello{Min: 1, Max: 1}, 0},
		{Hello{Min: 1, Max: 1}, Hello{Min: 2, Max: 2}, 0},
		{Hello{}, Hello{Min: 1, Max: 1}, 0},
	} {
		if got := Negotiate(tc.client, tc.shim); got != tc.want {
			t.Errorf("%+v with %+v: version %d, want %d", tc.client, tc.shim, got, tc.want)
		}
	}
}
