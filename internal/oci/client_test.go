package oci

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"go.uber.org/goleak"

	"errand.dev/errand/internal/oci/shimapi"
)

// fakeShim answers requests by a function, on a socket as the shim's.
type fakeShim struct {
	t        *testing.T
	listener *net.UnixListener
	answer   func(conn *shimapi.Conn, req shimapi.Request)

	mu    sync.Mutex
	hello shimapi.Hello
}

// newFakeShim returns the shim and a client of it.
func newFakeShim(t *testing.T, answer func(*shimapi.Conn, shimapi.Request)) (*fakeShim, *Client) {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "e")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, shimapi.SocketName), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	s := &fakeShim{t: t, listener: l, answer: answer, hello: shimapi.Hello{Min: 1, Max: 1, Version: 1, Instance: "i", Pid: 1, Build: "old"}}
	var wg sync.WaitGroup
	wg.Go(func() { s.serve(&wg) })
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
		os.RemoveAll(dir)
	})
	return s, &Client{
		cfg:      Config{RuntimeDir: dir, ShimPath: "/no/such/shim", DefaultHandler: "runc"},
		handlers: map[string]shimapi.Handler{"runc": {Name: "runc"}}, inFlight: map[string]chan struct{}{},
	}
}

func (s *fakeShim) serve(wg *sync.WaitGroup) {
	for {
		sock, err := s.listener.AcceptUnix()
		if err != nil {
			return
		}
		wg.Go(func() {
			defer sock.Close()
			conn, err := shimapi.NewConn(sock)
			if err != nil {
				s.t.Error(err)
				return
			}
			s.mu.Lock()
			hello := s.hello
			s.mu.Unlock()
			var client shimapi.Hello
			var req shimapi.Request
			if errors.Join(conn.RecvNoFDs(&client), conn.Send(hello), conn.RecvNoFDs(&req)) == nil {
				s.answer(conn, req)
			}
		})
	}
}

func respond(conn *shimapi.Conn, body any, e *shimapi.Error) {
	raw, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	_ = conn.Send(shimapi.Response{Body: raw, Error: e})
}

func TestErrorsFromTheShim(t *testing.T) {
	// The container's ID is the code to answer with.
	_, c := newFakeShim(t, func(conn *shimapi.Conn, req shimapi.Request) {
		var ref shimapi.ContainerRef
		if err := json.Unmarshal(req.Body, &ref); err != nil {
			t.Error(err)
		}
		respond(conn, nil, &shimapi.Error{Code: shimapi.Code(ref.ID), Message: "what happened"})
	})
	ask := func(code shimapi.Code) error { return c.ReopenLog(t.Context(), string(code)) }
	for code, is := range map[shimapi.Code]error{
		shimapi.CodeNotFound: ErrNotFound, shimapi.CodeExists: ErrExists, shimapi.CodeState: ErrNotRunning,
		shimapi.CodeDraining: ErrDraining, shimapi.CodeInvalid: ErrInvalid,
	} {
		if err := ask(code); !errors.Is(err, is) || err.Error() != "what happened" {
			t.Errorf("%s: %v", code, err)
		}
	}
	var start *StartError
	if err := ask(shimapi.CodeStart); !errors.As(err, &start) || start.ID != "start" || start.Message != "what happened" {
		t.Errorf("start: %v", err)
	}
	var runtime *RuntimeError
	if err := ask(shimapi.CodeRuntime); !errors.As(err, &runtime) || runtime.ID != "runtime" {
		t.Errorf("runtime: %v", err)
	}
	if err := ask("of a later version"); err == nil || !strings.Contains(err.Error(), "what happened") {
		t.Errorf("unknown code: %v", err)
	}
	if !errdefs.IsNotFound(ErrNotFound) || !errdefs.IsAlreadyExists(ErrExists) || !errdefs.IsUnavailable(ErrParentLost) {
		t.Error("the sentinels aren't errdefs's")
	}
}

func TestIncompatibleShim(t *testing.T) {
	s, c := newFakeShim(t, func(*shimapi.Conn, shimapi.Request) {})
	s.mu.Lock()
	s.hello.Version, s.hello.Min, s.hello.Max = 0, 7, 8
	s.mu.Unlock()
	_, err := c.List(t.Context())
	if err == nil || !strings.Contains(err.Error(), "speaks versions 7 to 8") || !strings.Contains(err.Error(), "drain") {
		t.Errorf("%v", err)
	}
}

func TestShimDiesDuringACall(t *testing.T) {
	_, c := newFakeShim(t, func(*shimapi.Conn, shimapi.Request) {}) // hangs up
	if _, err := c.List(t.Context()); !errors.Is(err, ErrParentLost) {
		t.Errorf("%v", err)
	}
}

func TestContextEndsDuringACall(t *testing.T) {
	_, c := newFakeShim(t, func(conn *shimapi.Conn, _ shimapi.Request) { _ = conn.RecvNoFDs(&struct{}{}) })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := c.List(ctx); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrParentLost) {
		t.Errorf("%v", err)
	}
}

func TestNoShimToStart(t *testing.T) {
	_, err := Connect(t.Context(), Config{
		RuntimeDir: mkdirShort(t), ShimPath: "/no/such/shim",
		Handlers: map[string]Handler{"runc": {Path: "/bin/sh"}}, DefaultHandler: "runc",
	})
	if err == nil || errors.Is(err, ErrParentLost) || !strings.Contains(err.Error(), "/no/such/shim") {
		t.Errorf("%v", err)
	}
}

func mkdirShort(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "e")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func exitOf(id string, seq uint64) shimapi.Container {
	return shimapi.Container{ID: id, State: shimapi.Exited, Seq: seq, Exit: &shimapi.Exit{Code: int(seq)}}
}

// TestEventsGoOnAfterABrokenConnection: with the same shim none is lost and none comes twice; another one means that the
// parent was lost.
func TestEventsGoOnAfterABrokenConnection(t *testing.T) {
	var s *fakeShim
	s, c := newFakeShim(t, func(conn *shimapi.Conn, req shimapi.Request) {
		var events shimapi.Events
		if err := json.Unmarshal(req.Body, &events); err != nil {
			t.Error(err)
		}
		for seq := events.After + 1; seq <= events.After+3; seq++ {
			respond(conn, exitOf("c", seq), nil)
		}
		if events.After >= 6 { // restarted
			s.mu.Lock()
			s.hello.Instance = "another"
			s.mu.Unlock()
		}
	})
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	events, err := c.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []int
	for e := range events {
		got = append(got, e.ExitCode)
	}
	if len(got) != 9 || !errors.Is(c.Err(), ErrParentLost) {
		t.Errorf("exits %v, then %v", got, c.Err())
	}
	for i, code := range got {
		if code != i+1 {
			t.Fatalf("exits %v", got)
		}
	}
}

// TestExitComesAfterItsRun even if the shim answers the Run last.
func TestExitComesAfterItsRun(t *testing.T) {
	bundle := t.TempDir()
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), []byte(`{"process":{},"linux":{"cgroupsPath":"/x/a"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	running, answer := make(chan struct{}), make(chan struct{})
	_, c := newFakeShim(t, func(conn *shimapi.Conn, req shimapi.Request) {
		if req.Op == shimapi.OpRun {
			close(running)
			<-answer
			respond(conn, shimapi.Started{Pid: 42}, nil)
			return
		}
		<-running
		respond(conn, exitOf("a", 1), nil)
		_ = conn.RecvNoFDs(&struct{}{})
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	events, err := c.Events(ctx)
	if err != nil {
		t.Fatal(err)
	}
	returned := make(chan error, 1)
	go func() {
		_, err := c.Run(t.Context(), RunRequest{ID: "a", Bundle: bundle})
		returned <- err
	}()
	select {
	case <-running:
	case err := <-returned:
		t.Fatalf("the Run didn't reach the shim: %v", err)
	}
	select {
	case e := <-events:
		t.Errorf("%+v while its Run is in flight", e)
	case <-time.After(20 * time.Millisecond): // nothing to wait for: that it doesn't come is the point
	}
	close(answer)
	if err := <-returned; err != nil {
		t.Error(err)
	}
	if e := <-events; e.ID != "a" {
		t.Errorf("%+v", e)
	}
}

// TestUpdateByAnOlderShim, which answers without a body: it has changed the limits itself.
func TestUpdateByAnOlderShim(t *testing.T) {
	_, c := newFakeShim(t, func(conn *shimapi.Conn, req shimapi.Request) {
		if req.Op != shimapi.OpUpdate {
			t.Errorf("asked for %s", req.Op)
		}
		if err := conn.Send(shimapi.Response{}); err != nil {
			t.Error(err)
		}
	})
	if err := c.Update(t.Context(), "a", &specs.LinuxResources{}); err != nil {
		t.Error(err)
	}
}

func TestInvalidRuns(t *testing.T) {
	_, c := newFakeShim(t, func(*shimapi.Conn, shimapi.Request) { t.Error("reached the shim") })
	bundle := func(config string) string {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	for name, req := range map[string]RunRequest{
		"handler":  {ID: "a", Handler: "kata"},
		"no JSON":  {ID: "a", Bundle: bundle("{")},
		"process":  {ID: "a", Bundle: bundle(`{"linux":{"cgroupsPath":"/x"}}`)},
		"cgroup":   {ID: "a", Bundle: bundle(`{"process":{},"linux":{"cgroupsPath":"x"}}`)},
		"terminal": {ID: "a", Bundle: bundle(`{"process":{"terminal":true},"linux":{"cgroupsPath":"/x"}}`)},
	} {
		if _, err := c.Run(t.Context(), req); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := c.Run(t.Context(), RunRequest{ID: "a", Bundle: "/no/bundle"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no bundle: %v", err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Run(over, RunRequest{}); !errors.Is(err, context.Canceled) {
		t.Errorf("ended context: %v", err)
	}
}

func TestConfig(t *testing.T) {
	good := Config{
		RuntimeDir: "/run/errand", ShimPath: "errand-shim", CgroupParent: "/errand", DefaultHandler: "runc",
		Handlers: map[string]Handler{"runc": {Path: "sh"}, "own": {Path: "/bin/sh", Root: "/x"}},
	}
	_, handlers, err := good.complete()
	if err != nil || !filepath.IsAbs(handlers["runc"].Path) || handlers["runc"].Root != "/run/errand/runc" || handlers["own"].Root != "/x" {
		t.Errorf("%+v, %v", handlers, err)
	}
	bad := Config{RuntimeDir: "/" + strings.Repeat("x", 80), CgroupParent: "errand", DefaultHandler: "none", Handlers: map[string]Handler{"runc": {Path: "/no/runc"}}}
	_, _, err = bad.complete()
	for _, part := range []string{"at most 80", `"errand": must be absolute`, `"none" is not among`, "/no/runc"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%q isn't in %v", part, err)
		}
	}
	for path, want := range map[string]bool{"/usr/bin/runc": true, "/x/crun-1.21": true, "/usr/bin/kata-runtime": false, "/usr/bin/runsc": false} {
		if leavesLittle(path) != want {
			t.Errorf("leavesLittle(%s) = %v", path, !want)
		}
	}
}
