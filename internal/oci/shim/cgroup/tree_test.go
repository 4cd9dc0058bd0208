package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fake makes a tree of directories that look like cgroups; v1 names controllers, each a hierarchy of its own.
func fake(t *testing.T, v2 bool, v1 ...string) (*Tree, string) {
	t.Helper()
	top := t.TempDir()
	var mountinfo strings.Builder
	mountinfo.WriteString("22 1 8:1 / / rw - ext4 /dev/sda1 rw\nnonsense\n")
	for i, c := range v1 {
		fmt.Fprintf(&mountinfo, "3%d 24 0:3%d / %s rw,relatime shared:9 - cgroup cgroup rw,%s\n", i, i, mkdir(t, top, c), c)
	}
	if v2 {
		fmt.Fprintf(&mountinfo, "40 24 0:40 / %s rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n", mkdir(t, top, "unified"))
		fmt.Fprintf(&mountinfo, "41 24 0:40 / %s rw,relatime - cgroup2 cgroup2 rw\n", mkdir(t, top, "again"))
	}
	tree, err := parse(strings.NewReader(mountinfo.String()))
	if err != nil {
		t.Fatal(err)
	}
	tree.proc = mkdir(t, top, "proc")
	return tree, top
}

func mkdir(t *testing.T, elem ...string) string {
	t.Helper()
	dir := filepath.Join(elem...)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func file(t *testing.T, content string, elem ...string) {
	t.Helper()
	mkdir(t, filepath.Dir(filepath.Join(elem...)))
	if err := os.WriteFile(filepath.Join(elem...), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestParse(t *testing.T) {
	tree, err := parse(strings.NewReader(`25 24 0:22 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
26 24 0:23 /docker/1 /sys/fs/cgroup/with\040space rw - cgroup cgroup rw,xattr,name=systemd
27 24 0:24 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
28 24 0:24 / /mnt rw - cgroup2 cgroup2 rw
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []hierarchy{
		{dir: "/sys/fs/cgroup/cpu,cpuacct", root: "/", controllers: []string{"rw", "cpu", "cpuacct"}},
		{dir: "/sys/fs/cgroup/with space", root: "/docker/1", controllers: []string{"rw", "xattr", "name=systemd"}},
		{dir: "/sys/fs/cgroup/unified", root: "/", v2: true},
	}
	if diff := cmp.Diff(want, tree.hierarchies, cmp.AllowUnexported(hierarchy{})); diff != "" {
		t.Error(diff)
	}
}

func TestOOMKilled(t *testing.T) {
	v1, v1Dir := fake(t, true, "cpu", "memory")
	v2, v2Dir := fake(t, true)
	file(t, "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n", v1Dir, "memory/c/killed/memory.oom_control")
	file(t, "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n", v1Dir, "memory/c/alive/memory.oom_control")
	file(t, "low 0\nhigh 0\nmax 7\noom 1\noom_kill 1\noom_group_kill 0\n", v2Dir, "unified/c/killed/memory.events")
	file(t, "low 0\nhigh 0\nmax 7\noom 1\noom_kill 0\noom_group_kill 0\n", v2Dir, "unified/c/alive/memory.events")
	for path, want := range map[string]bool{"/c/killed": true, "/c/alive": false, "/c/none": false} {
		for name, tree := range map[string]*Tree{"v1": v1, "v2": v2} {
			if got := tree.OOMKilled(path); got != want {
				t.Errorf("%s %s: %v", name, path, got)
			}
		}
	}
}

func TestPids(t *testing.T) {
	tree, dir := fake(t, true, "cpu", "memory")
	file(t, "1\n2\n0\n", dir, "cpu/c/cgroup.procs")
	file(t, "2\n3\n", dir, "memory/c/cgroup.procs")
	file(t, "4\n", dir, "unified/c/below/deep/cgroup.procs")
	file(t, "5\n", dir, "unified/other/cgroup.procs")
	got := map[int]bool{}
	for _, pid := range tree.Pids("/c") {
		got[pid] = true
	}
	if diff := cmp.Diff(map[int]bool{1: true, 2: true, 3: true, 4: true}, got); diff != "" {
		t.Error(diff)
	}
}

func TestPopulated(t *testing.T) {
	hybrid, dir := fake(t, true, "cpu")
	file(t, "populated 1\nfrozen 0\n", dir, "unified/full/cgroup.events")
	file(t, "populated 0\nfrozen 0\n", dir, "unified/empty/cgroup.events")
	v1, v1Dir := fake(t, false, "cpu")
	file(t, "77\n", v1Dir, "cpu/full/cgroup.procs")
	file(t, "", v1Dir, "cpu/empty/cgroup.procs")
	for path, want := range map[string]bool{"/full": true, "/empty": false, "/none": false} {
		for name, tree := range map[string]*Tree{"hybrid": hybrid, "v1": v1} {
			if got := tree.populated(path); got != want {
				t.Errorf("%s %s: %v", name, path, got)
			}
		}
	}
}

func TestContains(t *testing.T) {
	tree, dir := fake(t, true, "memory")
	tree.hierarchies[0].root = "/docker/1"
	file(t, "4:memory:/docker/1/c\n0::/elsewhere\n", dir, "proc/10/cgroup")
	file(t, "4:memory:/\n0::/c/below\n", dir, "proc/11/cgroup")
	file(t, "4:memory:/c\n0::/cc\n", dir, "proc/12/cgroup")
	for pid, want := range map[int]bool{10: true, 11: true, 12: false, 13: false} {
		if got := tree.contains("/c", pid); got != want {
			t.Errorf("%d: %v", pid, got)
		}
	}
}

func TestRemoveAndJoin(t *testing.T) {
	tree, dir := fake(t, true, "cpuset", "memory")
	mkdir(t, dir, "cpuset/c")
	mkdir(t, dir, "unified/c/below/deep")
	if err := tree.Remove("/c", 0); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"cpuset/c", "unified/c", "memory/c"} {
		if existing(filepath.Join(dir, d)) != "" {
			t.Errorf("%s is left", d)
		}
	}
	file(t, "0-1\n", dir, "cpuset/cpuset.cpus")
	// The kernel would make these files with their directory.
	file(t, "", dir, "cpuset/x/cpuset.cpus")
	for _, h := range []string{"cpuset", "memory", "unified"} {
		file(t, "", dir, h, "x/shim/cgroup.procs")
	}
	if err := tree.Join("/x/shim"); err != nil {
		t.Fatal(err)
	}
	for f, want := range map[string]string{
		"cpuset/x/cpuset.cpus":        "0-1",
		"cpuset/x/shim/cgroup.procs":  fmt.Sprint(os.Getpid()),
		"unified/x/shim/cgroup.procs": fmt.Sprint(os.Getpid()),
	} {
		if got, err := os.ReadFile(filepath.Join(dir, f)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v; want %q", f, got, err, want)
		}
	}
}
