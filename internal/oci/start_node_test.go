//go:build node

package oci

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// A shim that ended while it moved to its cgroup has one in some hierarchies only, and containers' parents in all.
func TestCgroupsOfAShimThatEndedEarly(t *testing.T) {
	parent := fmt.Sprintf("/errand-test-%d", os.Getpid())
	procs, err := filepath.Glob("/sys/fs/cgroup/*/cgroup.procs") // version 1
	if err != nil {
		t.Fatal(err)
	}
	var dirs []string
	for _, p := range procs {
		if resolved, err := filepath.EvalSymlinks(filepath.Dir(p)); err == nil && filepath.Dir(resolved) == "/sys/fs/cgroup" {
			dirs = append(dirs, filepath.Join(resolved, parent))
		}
	}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil { // version 2
		dirs = []string{"/sys/fs/cgroup" + parent}
	}
	if len(dirs) == 0 {
		t.Fatal("there are no cgroups here")
	}
	for i, dir := range dirs {
		if i == 0 {
			dir = filepath.Join(dir, shimCgroup)
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	c := &Client{cfg: Config{CgroupParent: parent}}
	if err := c.removeCgroup(t.Context()); err != nil {
		t.Error(err)
	}
	for _, dir := range dirs {
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s is left", dir)
			_ = os.Remove(dir) // for the next test
		}
	}
}
