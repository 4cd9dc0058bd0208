package cgroup

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestOpen(t *testing.T) {
	tree, dir := fake(t, true, "cpu,cpuacct", "memory", "pids")
	for _, h := range []string{"cpu,cpuacct", "memory"} {
		file(t, "", dir, h, "c/tasks")
	}
	mkdir(t, dir, "unified/c")
	m, err := tree.Open("/c")
	if err != nil {
		t.Fatal(err)
	}
	var st, want unix.Stat_t
	if err := errors.Join(unix.Fstat(m.V2, &st), unix.Stat(filepath.Join(dir, "unified/c"), &want)); err != nil || st.Ino != want.Ino {
		t.Errorf("v2: %v", err)
	}
	if len(m.V1) != 2 {
		t.Fatalf("%+v", m.V1)
	}
	for i, name := range []string{"cpu,cpuacct", "memory"} {
		g := m.V1[i]
		if g.Name != name || g.Dir != filepath.Join(dir, name, "c") || (len(g.Aliases) == 2) != (i == 0) {
			t.Errorf("%+v", g)
		}
		if _, err := unix.Write(g.Tasks, []byte("0")); err != nil {
			t.Error(err)
		}
		if got, err := os.ReadFile(filepath.Join(g.Dir, "tasks")); err != nil || string(got) != "0" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	m.Close()
	for _, fd := range []int{m.V2, m.V1[0].Tasks, m.V1[1].Tasks} {
		if err := unix.Fstat(fd, &st); !errors.Is(err, unix.EBADF) {
			t.Errorf("descriptor %d is left open: %v", fd, err)
		}
	}
}

func TestOpenNothing(t *testing.T) {
	for name, v2 := range map[string]bool{"v1": false, "hybrid": true} {
		tree, dir := fake(t, v2, "cpu")
		if _, err := tree.Open("/none"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
		// A file where a cgroup should be is no missing one.
		file(t, "", dir, "cpu/odd")
		if _, err := tree.Open("/odd"); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s, a file: %v", name, err)
		}
	}
	v1, dir := fake(t, false, "cpu")
	file(t, "", dir, "cpu/c/tasks")
	m, err := v1.Open("/c")
	if err != nil || m.V2 != -1 || len(m.V1) != 1 {
		t.Fatalf("%+v, %v", m, err)
	}
	m.Close()
}

func TestPaths(t *testing.T) {
	hybrid, dir := fake(t, true, "cpu", "memory")
	want := map[string]string{
		"": filepath.Join(dir, "unified/c"), "rw": filepath.Join(dir, "memory/c"),
		"cpu": filepath.Join(dir, "cpu/c"), "memory": filepath.Join(dir, "memory/c"),
	}
	if diff := cmp.Diff(want, hybrid.Paths("/c")); diff != "" {
		t.Error(diff)
	}
	if got := hybrid.UnifiedOnly("/c"); got != "" {
		t.Errorf("hybrid: %s", got)
	}
	v2, dir := fake(t, true)
	if got := v2.UnifiedOnly("/c"); got != filepath.Join(dir, "unified/c") {
		t.Errorf("v2: %q", got)
	}
}
