//go:build node

package oci_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"errand.dev/errand/internal/oci"
	"errand.dev/errand/internal/oci/ocitest"
	"errand.dev/errand/internal/oci/shimapi"
)

// clientEnv makes this test binary a client that runs the bundles found in a directory, to be killed.
const clientEnv = "ERRAND_TEST_CLIENT"

func clientProcess(dir string) int {
	ctx := context.Background()
	c, err := oci.Connect(ctx, oci.Config{
		RuntimeDir: filepath.Join(dir, "run"), ShimPath: os.Getenv("ERRAND_TEST_SHIM"), CgroupParent: os.Getenv("ERRAND_TEST_CGROUP"),
		Handlers:       map[string]oci.Handler{"runc": {Path: os.Getenv("ERRAND_TEST_RUNC")}},
		DefaultHandler: "runc",
	})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("connected")
	bundles, _ := filepath.Glob(filepath.Join(dir, "bundle-*"))
	var wg sync.WaitGroup
	for _, b := range bundles {
		wg.Go(func() {
			id := strings.TrimPrefix(filepath.Base(b), "bundle-")
			if _, err := c.Run(ctx, oci.RunRequest{ID: id, Bundle: b, LogPath: filepath.Join(dir, id+".log")}); err != nil {
				fmt.Println(err)
			}
		})
	}
	wg.Wait()
	fmt.Println("started")
	select {}
}

// startClient starts the client process and returns it when it has said a word.
func startClient(t *testing.T, h *ocitest.Host, word string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), clientEnv+"="+h.Dir, "ERRAND_TEST_SHIM="+shimPath,
		"ERRAND_TEST_CGROUP="+h.CgroupParent, "ERRAND_TEST_RUNC="+ocitest.Runc(t))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if lines.Text() == word {
			return cmd
		}
		if lines.Text() != "connected" {
			t.Error(lines.Text())
		}
	}
	t.Fatalf("the client hasn't said %q", word)
	return nil
}

func kill(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
}

// TestClientKilled: containers go on without errand, and its successor learns how they ended, during its absence or later.
func TestClientKilled(t *testing.T) {
	h := ocitest.NewHost(t)
	gate := filepath.Join(h.Dir, "rootfs/tmp-gate")
	if err := os.MkdirAll(gate, 0o755); err != nil {
		t.Fatal(err)
	}
	const n = 6
	for i := range n {
		h.Bundle(fmt.Sprint("c", i), []string{"sh", "-c", fmt.Sprintf("echo hello%d; until [ -e /tmp-gate/%d ]; do sleep 0.01; done; echo bye; exit %d", i, i%2, i)})
	}
	open := func(i int) {
		if err := os.WriteFile(filepath.Join(gate, strconv.Itoa(i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := startClient(t, h, "started")
	kill(t, cmd)
	open(0)
	c := connect(t, h)
	events, err := c.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for range n / 2 {
		e := <-events
		got[e.ID] = e.ExitCode
	}
	list, err := c.List(t.Context())
	if err != nil || len(list) != n {
		t.Fatalf("list: %v, %v", list, err)
	}
	for _, s := range list {
		if _, over := got[s.ID]; over != (s.State == oci.Exited) || s.Pid == 0 || s.StartedAt.IsZero() {
			t.Errorf("%+v, exits so far: %v", s, got)
		}
	}
	open(1)
	for range n / 2 {
		e := <-events
		if _, twice := got[e.ID]; twice {
			t.Errorf("%s came twice", e.ID)
		}
		got[e.ID] = e.ExitCode
	}
	for i := range n {
		id := fmt.Sprint("c", i)
		if got[id] != i {
			t.Errorf("%s: exit code %d", id, got[id])
		}
		data, err := os.ReadFile(h.Log(id))
		if err != nil || !strings.Contains(string(data), "hello"+strconv.Itoa(i)) || !strings.Contains(string(data), "F bye\n") {
			t.Errorf("%s: log %q, %v", id, data, err)
		}
	}
	deleteAll(t, c)
}

// TestClientKilledWhileStarting: whatever the moment, a container is known or wasn't started, and the List of the successor
// is complete.
func TestClientKilledWhileStarting(t *testing.T) {
	for i := range 8 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			h := ocitest.NewHost(t)
			for i := range 4 {
				h.Bundle(fmt.Sprint("c", i), []string{"sleep", "1000"})
			}
			cmd := startClient(t, h, "connected")
			time.Sleep(time.Duration(i) * 12 * time.Millisecond)
			kill(t, cmd)
			c := connect(t, h)
			list, err := c.List(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range list {
				if cgroup, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", s.Pid)); err != nil || !strings.Contains(string(cgroup), h.Cgroup(s.ID)) {
					t.Errorf("%+v: %v", s, err)
				}
			}
			deleteAll(t, c)
			if again, err := c.List(t.Context()); err != nil || len(again) > 0 {
				t.Errorf("another container appeared: %v, %v", again, err)
			}
		})
	}
}

func deleteAll(t testing.TB, c *oci.Client) {
	t.Helper()
	list, err := c.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for _, s := range list {
		wg.Go(func() {
			if err := c.Delete(t.Context(), s.ID); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// socketOwner is the pid of the process that listens on a unix socket.
func socketOwner(t testing.TB, path string) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		t.Fatal(err)
	}
	return int(cred.Pid)
}

func shimPid(t testing.TB, h *ocitest.Host) int {
	t.Helper()
	return socketOwner(t, filepath.Join(h.Dir, "run", shimapi.SocketName))
}

// TestShimKilled: its containers are reported as lost by its successor, and nothing of them is left.
func TestShimKilled(t *testing.T) {
	h := ocitest.NewHost(t)
	c := connect(t, h)
	run := func(id string, args ...string) int {
		pid, err := c.Run(t.Context(), oci.RunRequest{ID: id, Bundle: h.Bundle(id, args), LogPath: h.Log(id)})
		if err != nil {
			t.Fatal(err)
		}
		return pid
	}
	events, err := c.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	run("over", "sh", "-c", "exit 5")
	if e := <-events; e.ExitCode != 5 {
		t.Fatalf("%+v", e)
	}
	pid := run("lost", "sh", "-c", "trap '' TERM HUP; sleep 1000 & sleep 1000")
	p, err := c.Exec(t.Context(), "lost", oci.ExecRequest{Process: ocitest.Process("sleep", "1000")})
	if err != nil {
		t.Fatal(err)
	}
	starting := make(chan error)
	for i := range 4 {
		id := fmt.Sprint("starting", i)
		bundle := h.Bundle(id, []string{"sleep", "1000"})
		go func() {
			_, err := c.Run(context.Background(), oci.RunRequest{ID: id, Bundle: bundle})
			starting <- err
		}()
	}
	time.Sleep(20 * time.Millisecond)
	if err := syscall.Kill(shimPid(t, h), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, ok := <-events; ok || !errors.Is(c.Err(), oci.ErrParentLost) {
		t.Errorf("events go on, or %v", c.Err())
	}
	if _, err := p.Wait(t.Context()); !errors.Is(err, oci.ErrParentLost) {
		t.Errorf("exec: %v", err)
	}
	for range 4 {
		if err := <-starting; err != nil && !errors.Is(err, oci.ErrParentLost) {
			t.Errorf("start in flight: %v", err)
		}
	}

	if events, err = c.Events(t.Context()); err != nil { // starts another one
		t.Fatal(err)
	}
	list, err := c.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]oci.Event{}
	for range list {
		e := <-events
		got[e.ID] = e
	}
	if e := got["over"]; e.ExitCode != 5 || e.Reason != "" {
		t.Errorf("exit recorded before: %+v", e)
	}
	if e := got["lost"]; e.ExitCode != 137 || e.Reason != oci.ReasonShimLost || e.Pid != pid {
		t.Errorf("lost: %+v", e)
	}
	for _, l := range h.Leaks(filepath.Join(h.Dir, "run/runc")) {
		// The shim and its cgroup are no leaks.
		if !strings.Contains(l, "errand-shim") && !strings.HasSuffix(l, h.CgroupParent) {
			t.Errorf("left behind: %s", l)
		}
	}
	run("next", "true")
	if e := <-events; e.ID != "next" || e.ExitCode != 0 {
		t.Errorf("%+v", e)
	}
	deleteAll(t, c)
}

// TestOneShim: of any number of clients that find no shim, one starts it.
func TestOneShim(t *testing.T) {
	h := ocitest.NewHost(t)
	clients := make([]*oci.Client, 10)
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			c, err := oci.Connect(t.Context(), config(t, h))
			if err != nil {
				t.Error(err)
			}
			clients[i] = c
		})
	}
	wg.Wait()
	c := connect(t, h)
	out, err := exec.Command("pgrep", "-f", "errand-shim --dir "+h.Dir).Output()
	if n := len(strings.Fields(string(out))); err != nil || n != 1 {
		t.Errorf("%d shims: %s, %v", n, out, err)
	}
	// Another one started by hand gives way.
	cmd := exec.Command(shimPath, "--dir", filepath.Join(h.Dir, "run"), "--detach")
	if said, err := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != 3 {
		t.Errorf("a second shim: %s, %v", said, err)
	}
	if list, err := c.List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
}

// TestDrain: a shim that is drained goes when its last container has, and takes no more; its successor knows the exits.
func TestDrain(t *testing.T) {
	h := ocitest.NewHost(t)
	c := connect(t, h)
	if _, err := c.Run(t.Context(), oci.RunRequest{ID: "a", Bundle: h.Bundle("a", []string{"sleep", "1000"})}); err != nil {
		t.Fatal(err)
	}
	drainer, err := oci.Connect(t.Context(), config(t, h))
	if err != nil {
		t.Fatal(err)
	}
	pid := shimPid(t, h)
	drained := make(chan error, 1)
	go func() { drained <- drainer.Drain(t.Context(), false) }()
	for i := 0; ; i++ {
		id := fmt.Sprint("b", i)
		_, err := c.Run(t.Context(), oci.RunRequest{ID: id, Bundle: h.Bundle(id, []string{"true"})})
		if errors.Is(err, oci.ErrDraining) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	select {
	case err := <-drained:
		t.Fatalf("drained while a container runs: %v", err)
	default:
	}
	if err := c.Signal(t.Context(), "a", syscall.SIGKILL, false); err != nil {
		t.Fatal(err)
	}
	if err := <-drained; err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, 0); err == nil {
		if stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); !strings.Contains(string(stat), ") Z ") {
			t.Error("the shim is still there")
		}
	}
	if _, err := drainer.List(t.Context()); !errors.Is(err, oci.ErrDraining) {
		t.Errorf("after draining: %v", err)
	}
	list, err := c.List(t.Context())
	if err != nil || len(list) == 0 {
		t.Fatalf("the next shim knows %v, %v", list, err)
	}
	for _, s := range list {
		if s.State != oci.Exited || s.Reason != "" || s.ID == "a" && s.ExitCode != 137 {
			t.Errorf("%+v", s)
		}
	}
	deleteAll(t, c)
}
