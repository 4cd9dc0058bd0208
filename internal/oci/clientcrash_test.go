//go:build node

package oci_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"errand.dev/errand/internal/oci"
	"errand.dev/errand/internal/oci/ocitest"
	"errand.dev/errand/internal/oci/shim/cgroup"
)

// clientEnv makes this test binary a client that runs the bundles found in a directory, to be killed.
const clientEnv = "ERRAND_TEST_CLIENT"

func clientProcess(dir string) int {
	ctx := context.Background()
	c, err := oci.Connect(ctx, oci.Config{
		RuntimeDir: filepath.Join(dir, "run"), ShimPath: os.Getenv("ERRAND_TEST_SHIM"), CgroupParent: os.Getenv("ERRAND_TEST_CGROUP"),
		Handlers:       map[string]oci.Handler{"runc": {Path: os.Getenv("ERRAND_TEST_RUNC")}},
		DefaultHandler: "runc", Native: os.Getenv("ERRAND_TEST_NATIVE") == "true",
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
func startClient(t *testing.T, h *ocitest.Host, native bool, word string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), clientEnv+"="+h.Dir, "ERRAND_TEST_SHIM="+shimPath,
		"ERRAND_TEST_CGROUP="+h.CgroupParent, "ERRAND_TEST_RUNC="+ocitest.Runc(t), fmt.Sprintf("ERRAND_TEST_NATIVE=%v", native))
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
func TestClientKilled(t *testing.T) { eachBackEnd(t, testClientKilled) }

func testClientKilled(t *testing.T, native bool) {
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
	cmd := startClient(t, h, native, "started")
	kill(t, cmd)
	open(0)
	c := connectBy(t, h, native)
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
func TestClientKilledWhileStarting(t *testing.T) { eachBackEnd(t, testClientKilledWhileStarting) }

func testClientKilledWhileStarting(t *testing.T, native bool) {
	for i := range 8 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			h := ocitest.NewHost(t)
			for i := range 4 {
				h.Bundle(fmt.Sprint("c", i), []string{"sleep", "1000"})
			}
			cmd := startClient(t, h, native, "connected")
			time.Sleep(time.Duration(i) * 12 * time.Millisecond)
			kill(t, cmd)
			c := connectBy(t, h, native)
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
			if native {
				removeUnused(t, h)
			}
		})
	}
}

// removeUnused removes cgroups that the client made for containers before it was killed, and that nobody has come to know of. They
// are empty: it fails if not.
func removeUnused(t *testing.T, h *ocitest.Host) {
	t.Helper()
	tree, err := cgroup.Open()
	if err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		if err := tree.Remove(h.Cgroup(fmt.Sprint("c", i)), 0); err != nil {
			t.Error(err)
		}
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
