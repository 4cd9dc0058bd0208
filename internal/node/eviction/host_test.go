package eviction

import (
	"os"
	"path/filepath"
	"testing"
)

// machine writes the files of a machine below a temporary root.
func machine(t *testing.T, files map[string]string) *linux {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return &linux{root: root, capacity: 16 << 30, podsDir: root, imagesDir: func() string { return root }}
}

const meminfo = "MemTotal:       16000 kB\nMemFree:  9000 kB\nMemAvailable:    12000 kB\nInactive(file):  2000 kB\nHugePages_Total:       0\n"

func TestWorkingSet(t *testing.T) {
	for _, tc := range []struct {
		name  string
		files map[string]string
		want  int64
	}{
		{"version 1", map[string]string{
			"sys/fs/cgroup/memory/memory.usage_in_bytes": "5000\n", "sys/fs/cgroup/memory/memory.stat": "cache 1\ntotal_inactive_file 2000\n",
			"proc/meminfo": meminfo,
		}, 3000},
		{"version 2, in a container", map[string]string{
			"sys/fs/cgroup/memory.current": "5000\n", "sys/fs/cgroup/memory.stat": "anon 1\ninactive_file 1000\n", "proc/meminfo": meminfo,
		}, 4000},
		{"version 2, the machine", map[string]string{"sys/fs/cgroup/memory.stat": "inactive_file 1000\n", "proc/meminfo": meminfo}, 5000 << 10},
		{"more inactive than used", map[string]string{
			"sys/fs/cgroup/memory.current": "5000\n", "sys/fs/cgroup/memory.stat": "inactive_file 6000\n",
		}, 0},
	} {
		if got, err := machine(t, tc.files).workingSet(); err != nil || got != tc.want {
			t.Errorf("%s: %d, %v; want %d", tc.name, got, err, tc.want)
		}
	}
	for name, files := range map[string]map[string]string{
		"no machine at all": nil,
		"no MemTotal":       {"proc/meminfo": "MemFree: 1 kB\n"},
		"nonsense":          {"proc/meminfo": "MemTotal: many kB\n"},
	} {
		if got, err := machine(t, files).workingSet(); err == nil {
			t.Errorf("%s reads as %d", name, got)
		}
	}
}

func TestTasks(t *testing.T) {
	l := machine(t, map[string]string{
		"proc/loadavg": "0.36 0.62 1.13 1/93 15426\n", "proc/sys/kernel/pid_max": "32768\n", "proc/sys/kernel/threads-max": "192730\n",
	})
	if now, most, err := l.tasks(); err != nil || now != 93 || most != 32768 {
		t.Errorf("%d of %d, %v", now, most, err)
	}
}

func TestTheRealMachine(t *testing.T) {
	dir := t.TempDir()
	r, err := LinuxHost(1<<40, dir, func() string { return dir }).Read()
	if err != nil {
		t.Fatal(err)
	}
	if r.Memory.WorkingSet <= 0 || r.Tasks <= 0 || r.TasksMax <= r.Tasks || r.NodeFS.Available <= 0 || r.NodeFS.Capacity <= r.NodeFS.Available || r.NodeFS != r.ImageFS {
		t.Errorf("%+v", r)
	}
}
