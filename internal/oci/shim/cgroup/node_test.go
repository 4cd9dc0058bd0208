//go:build node

package cgroup

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The kernel tells when the last process has gone, and the cgroup can be
// removed right then.
func TestAwaitEmptyIsTold(t *testing.T) {
	root := t.TempDir()
	if err := unix.Mount("cgroup2", root, "cgroup2", 0, ""); err != nil {
		t.Fatalf("mount cgroups of version 2 (this test needs root): %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(root, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	dir := filepath.Join(root, fmt.Sprintf("errand-test-%d", os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err == nil {
			t.Error("it was not removed in time")
		}
	})
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := write(filepath.Join(dir, "cgroup.procs"), fmt.Sprint(cmd.Process.Pid)); err != nil {
		t.Fatal(err)
	}
	if err := unix.Rmdir(dir); err != unix.EBUSY {
		t.Errorf("with a process: %v", err)
	}
	waited := make(chan bool)
	go func() { waited <- AwaitEmpty(dir, time.Minute) }()
	begin := time.Now()
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	<-waited
	if took := time.Since(begin); took > 30*time.Second {
		t.Errorf("told after %v", took)
	}
	if err := unix.Rmdir(dir); err != nil {
		t.Error(err)
	}
}
