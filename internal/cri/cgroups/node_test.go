//go:build node

package cgroups

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The host's own cgroups, whichever version they are.
func TestRealTree(t *testing.T) {
	tree, err := Open(DefaultRoot)
	if err != nil {
		t.Fatal(err)
	}
	path := fmt.Sprintf("/errand-test-%d/pod", os.Getpid())
	parent := path[:len(path)-len("/pod")]
	t.Cleanup(func() {
		if err := tree.Remove(parent); err != nil {
			t.Error(err)
		}
	})
	l := &runtimeapi.LinuxContainerResources{CpuShares: 512, CpuQuota: 50_000, CpuPeriod: 100_000, MemoryLimitInBytes: 64 << 20}
	for range 2 {
		if err := tree.Create(path, l); err != nil {
			t.Fatal(err)
		}
	}
	l.CpuPeriod, l.CpuQuota, l.MemoryLimitInBytes = 50_000, 60_000, 128<<20
	if err := tree.Update(path, l); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", "read x; while :; do :; done")
	gate, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	// As containers are: version 2 takes no process beside the controllers that
	// the pod's cgroup hands on.
	for _, h := range tree.hierarchies {
		container := h + path + "/container"
		if err := os.Mkdir(container, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := write(container+"/cgroup.procs", fmt.Sprint(cmd.Process.Pid)); err != nil {
			t.Logf("%s: %v", h, err) // cpuset wants CPUs first
		}
	}
	if _, err := gate.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	s, err := tree.Stats(path)
	if err != nil || s.Processes != 1 || s.MemoryLimit != 128<<20 {
		t.Errorf("stats %+v, %v", s, err)
	}
	if err := tree.Kill(path); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the process ended by itself")
	}
}
