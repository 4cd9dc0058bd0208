package shim

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"errand.dev/errand/internal/oci/shim/cgroup"
	"errand.dev/errand/internal/oci/shimapi"
)

// newTestShim is a shim that finds no cgroups, so that it does without root.
func newTestShim(t *testing.T, dir string) *Shim {
	t.Helper()
	s, err := New(Config{Dir: dir, Build: "test", Log: log.New(io.Discard, "", 0)})
	if err != nil {
		t.Fatal(err)
	}
	s.tree = &cgroup.Tree{}
	t.Cleanup(func() { s.lock.Close() })
	return s
}

// serveTestShim runs a shim until the end of the test.
func serveTestShim(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "e")
	if err != nil {
		t.Fatal(err)
	}
	s := newTestShim(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- s.Run(ctx, func() { close(ready) }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		os.RemoveAll(dir)
	})
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	return filepath.Join(dir, shimapi.SocketName)
}

func dial(t *testing.T, path string) *shimapi.Conn {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(unix.Connect(fd, &unix.SockaddrUnix{Name: path}), unix.SetNonblock(fd, true)); err != nil {
		t.Fatal(err)
	}
	conn, err := shimapi.NewConn(os.NewFile(uintptr(fd), path))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func TestServe(t *testing.T) {
	path := serveTestShim(t)
	for name, tc := range map[string]struct {
		op   shimapi.Op
		body any
		code shimapi.Code // "" = success
	}{
		"ping":             {shimapi.OpPing, nil, ""},
		"list":             {shimapi.OpList, nil, ""},
		"delete nobody":    {shimapi.OpDelete, shimapi.ContainerRef{ID: "x"}, ""},
		"unknown":          {"dance", nil, shimapi.CodeInvalid},
		"malformed":        {shimapi.OpRun, []int{1}, shimapi.CodeInvalid},
		"invalid":          {shimapi.OpRun, shimapi.Run{ID: "a"}, shimapi.CodeInvalid},
		"no such bundle":   {shimapi.OpRun, validTestRun("a"), shimapi.CodeRuntime},
		"signal nobody":    {shimapi.OpSignal, shimapi.Signal{ID: "x", Signal: 9}, shimapi.CodeNotFound},
		"no such signal":   {shimapi.OpSignal, shimapi.Signal{ID: "x", Signal: 99}, shimapi.CodeInvalid},
		"exec, no files":   {shimapi.OpExec, shimapi.Exec{ID: "x"}, shimapi.CodeInvalid},
		"attach, no files": {shimapi.OpAttach, shimapi.Attach{ID: "x", Stdout: true}, shimapi.CodeInvalid},
		"attach nobody":    {shimapi.OpAttach, shimapi.Attach{ID: "x"}, shimapi.CodeNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			conn := dial(t, path)
			body, err := json.Marshal(tc.body)
			if err != nil {
				t.Fatal(err)
			}
			var hello shimapi.Hello
			var res shimapi.Response
			err = errors.Join(conn.Send(shimapi.Hello{Min: 1, Max: 9}), conn.Send(shimapi.Request{Op: tc.op, Body: body}),
				conn.RecvNoFDs(&hello), conn.RecvNoFDs(&res))
			if err != nil {
				t.Fatal(err)
			}
			if hello.Version != 1 || hello.Pid != os.Getpid() || hello.Instance == "" || hello.Build != "test" {
				t.Errorf("%+v", hello)
			}
			if (res.Error == nil) != (tc.code == "") || res.Error != nil && res.Error.Code != tc.code {
				t.Errorf("%+v, want code %q", res.Error, tc.code)
			}
		})
	}
}

// TestOtherVersion: a client from another time is told which versions there are.
func TestOtherVersion(t *testing.T) {
	conn := dial(t, serveTestShim(t))
	var hello shimapi.Hello
	if err := errors.Join(conn.Send(shimapi.Hello{Min: 90, Max: 91}), conn.RecvNoFDs(&hello)); err != nil {
		t.Fatal(err)
	}
	if hello.Version != 0 || hello.Max != shimapi.MaxVersion {
		t.Errorf("%+v", hello)
	}
	if err := conn.RecvNoFDs(&hello); !errors.Is(err, io.EOF) {
		t.Errorf("the shim goes on: %v", err)
	}
}

// TestGarbage: whatever a client sends, others are served.
func TestGarbage(t *testing.T) {
	path := serveTestShim(t)
	for _, garbage := range []string{"", "\x00", "GET / HTTP/1.0\r\n\r\n", "\x00\x00\x00\x02{}\xff\xff\xff\xff"} {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
			t.Fatal(err)
		}
		_, _ = unix.Write(fd, []byte(garbage))
		unix.Close(fd)
	}
	conn := dial(t, path)
	var hello shimapi.Hello
	if err := errors.Join(conn.Send(shimapi.Hello{Min: 1, Max: 1}), conn.RecvNoFDs(&hello)); err != nil || hello.Version != 1 {
		t.Errorf("%+v, %v", hello, err)
	}
}

func TestSecondShim(t *testing.T) {
	path := serveTestShim(t)
	if _, err := New(Config{Dir: filepath.Dir(path), Log: log.New(io.Discard, "", 0)}); !errors.Is(err, ErrRunning) {
		t.Errorf("a second shim: %v", err)
	}
}
