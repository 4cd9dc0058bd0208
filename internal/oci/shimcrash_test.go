//go:build node

package oci_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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
func TestShimKilled(t *testing.T) { eachBackEnd(t, testShimKilled) }

func testShimKilled(t *testing.T, native bool) {
	h := ocitest.NewHost(t)
	c := connectBy(t, h, native)
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
	starting := startSome(h, c)
	time.Sleep(20 * time.Millisecond) // somewhere in the middle
	if err := syscall.Kill(shimPid(t, h), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, ok := <-events; ok || !errors.Is(c.Err(), oci.ErrParentLost) {
		t.Errorf("events go on, or %v", c.Err())
	}
	if _, err := p.Wait(t.Context()); !errors.Is(err, oci.ErrParentLost) {
		t.Errorf("exec: %v", err)
	}
	for range cap(starting) {
		if err := <-starting; err != nil && !errors.Is(err, oci.ErrParentLost) {
			t.Errorf("start in flight: %v", err)
		}
	}

	if events, err = c.Events(t.Context()); err != nil { // starts another one
		t.Fatal(err)
	}
	endRunning(t, c)
	got := nextExits(t, c, events)
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

// startSome starts some containers in the background; the channel's capacity is how many.
func startSome(h *ocitest.Host, c *oci.Client) <-chan error {
	started := make(chan error, 4)
	for i := range cap(started) {
		id := fmt.Sprint("starting", i)
		bundle := h.Bundle(id, []string{"sleep", "1000"})
		go func() {
			_, err := c.Run(context.Background(), oci.RunRequest{ID: id, Bundle: bundle})
			started <- err
		}()
	}
	return started
}

// endRunning kills what came too late for a shim that was killed, and so runs under the next.
func endRunning(t *testing.T, c *oci.Client) {
	t.Helper()
	list, err := c.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		if s.State != oci.Running {
			continue
		}
		if err := c.Signal(t.Context(), s.ID, syscall.SIGKILL, true); err != nil {
			t.Fatal(err)
		}
	}
}

// nextExits receives the exits of all containers, none of which runs.
func nextExits(t *testing.T, c *oci.Client, events <-chan oci.Event) map[string]oci.Event {
	t.Helper()
	list, err := c.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]oci.Event{}
	for range list {
		e := <-events
		got[e.ID] = e
	}
	return got
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

// TestShimIsOnItsWay: one that another client started, and that client was killed, holds the directory for some time before it
// serves.
func TestShimIsOnItsWay(t *testing.T) {
	h := ocitest.NewHost(t)
	cfg := config(t, h)
	said := filepath.Join(h.Dir, "said")
	// A shim that waits in vain once, as errand-shim does for two seconds.
	script := fmt.Sprintf("#!/bin/sh\n[ \"$1\" = --version ] || [ -e %[1]s ] || { touch %[1]s; echo another errand-shim is running >&2; exit %[2]d; }\nexec %[3]s \"$@\"\n",
		said, shimapi.ExitRunning, shimPath)
	cfg.ShimPath = filepath.Join(h.Dir, "errand-shim")
	if err := os.WriteFile(cfg.ShimPath, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	c := connectTo(t, h, cfg)
	if list, err := c.List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
	if _, err := os.Stat(said); err != nil {
		t.Errorf("no shim was on its way: %v", err)
	}
}

// TestRunInVain: of a container that no shim ever hears of nothing is left.
func TestRunInVain(t *testing.T) {
	h := ocitest.NewHost(t)
	cfg := configBy(t, h, true)
	broken := filepath.Join(h.Dir, "broken")
	script := fmt.Sprintf("#!/bin/sh\n[ ! -e %s ] || exit 1\nexec %s \"$@\"\n", broken, shimPath)
	cfg.ShimPath = filepath.Join(h.Dir, "errand-shim")
	if err := os.WriteFile(cfg.ShimPath, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	c := connectTo(t, h, cfg)
	if err := os.WriteFile(broken, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(shimPid(t, h), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the first may be sent to the shim that is dying
		if _, err := c.Run(t.Context(), oci.RunRequest{ID: "vain", Bundle: h.Bundle("vain", []string{"true"})}); err == nil {
			t.Error("it runs without a shim")
		}
	}
	for _, pattern := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		if left, err := filepath.Glob(pattern + h.CgroupParent + "/vain"); err != nil || len(left) > 0 {
			t.Errorf("left: %v, %v", left, err)
		}
	}
	if err := os.Remove(broken); err != nil {
		t.Fatal(err)
	}
	if list, err := c.List(t.Context()); err != nil || len(list) != 0 { // by the next shim, which is drained then
		t.Errorf("%v, %v", list, err)
	}
}

// TestDrain: a shim that is drained goes when its last container has, and takes no more; its successor knows the exits.
func TestDrain(t *testing.T) { eachBackEnd(t, testDrain) }

func testDrain(t *testing.T, native bool) {
	h := ocitest.NewHost(t)
	c := connectBy(t, h, native)
	if _, err := c.Run(t.Context(), oci.RunRequest{ID: "a", Bundle: h.Bundle("a", []string{"sleep", "1000"})}); err != nil {
		t.Fatal(err)
	}
	drainer, err := oci.Connect(t.Context(), configBy(t, h, native))
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
