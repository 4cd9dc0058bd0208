package machine

import (
	"maps"
	"os"
	"path/filepath"
	"testing"
)

// machine writes the files of a machine below a temporary root.
func machine(t *testing.T, files map[string]string) Linux {
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
	return Linux(root)
}

func TestUsage(t *testing.T) {
	meminfo := map[string]string{
		"proc/meminfo": "MemTotal: 1000 kB\nMemFree: 400 kB\nInactive(file): 100 kB\nSwapTotal: 50 kB\nSwapFree: 30 kB\nHugePages_Total:   0\n",
	}
	for name, tc := range map[string]struct {
		files                 map[string]string
		cpu, used, workingSet int64
	}{
		"version 2, the machine's root": {
			files: map[string]string{"sys/fs/cgroup/cpu.stat": "usage_usec 7\nuser_usec 5\n", "sys/fs/cgroup/memory.stat": "inactive_file 1000\n"},
			cpu:   7000, used: 600 << 10, workingSet: 500 << 10,
		},
		"version 2, in a container": {
			files: map[string]string{
				"sys/fs/cgroup/cpu.stat":       "usage_usec 7\n",
				"sys/fs/cgroup/memory.current": "5000\n",
				"sys/fs/cgroup/memory.stat":    "anon 3\ninactive_file 1000\n",
			},
			cpu: 7000, used: 5000, workingSet: 4000,
		},
		"version 1": {
			files: map[string]string{
				"sys/fs/cgroup/cpuacct/cpuacct.usage":        "9\n",
				"sys/fs/cgroup/memory/memory.usage_in_bytes": "5000\n",
				"sys/fs/cgroup/memory/memory.stat":           "cache 1\ntotal_inactive_file 2000\n",
			},
			cpu: 9, used: 5000, workingSet: 3000,
		},
		"more inactive than used": {
			files: map[string]string{
				"sys/fs/cgroup/cpu.stat":       "usage_usec 1\n",
				"sys/fs/cgroup/memory.current": "5000\n",
				"sys/fs/cgroup/memory.stat":    "inactive_file 6000\n",
			},
			cpu: 1000, used: 5000, workingSet: 0,
		},
	} {
		maps.Copy(tc.files, meminfo)
		m := machine(t, tc.files)
		if got, err := m.Memory(); err != nil || got != (Memory{Used: tc.used, WorkingSet: tc.workingSet, SwapUsed: 20 << 10}) {
			t.Errorf("%s: memory %+v, %v", name, got, err)
		}
		if got, err := m.CPU(); err != nil || got != tc.cpu {
			t.Errorf("%s: CPU %d, %v; want %d", name, got, err, tc.cpu)
		}
	}
}

func TestUnreadable(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"no machine at all": nil,
		"no MemTotal":       {"proc/meminfo": "MemFree: 1 kB\n"},
		"nonsense":          {"proc/meminfo": "MemTotal: many kB\n"},
	} {
		if got, err := machine(t, files).Memory(); err == nil {
			t.Errorf("%s: memory reads as %+v", name, got)
		}
		if got, err := machine(t, files).CPU(); err == nil {
			t.Errorf("%s: CPU reads as %d", name, got)
		}
	}
}

func TestTasks(t *testing.T) {
	m := machine(t, map[string]string{
		"proc/loadavg": "0.36 0.62 1.13 1/93 15426\n", "proc/sys/kernel/pid_max": "32768\n", "proc/sys/kernel/threads-max": "192730\n",
	})
	if now, most, err := m.Tasks(); err != nil || now != 93 || most != 32768 {
		t.Errorf("%d of %d, %v", now, most, err)
	}
	if now, most, err := machine(t, map[string]string{"proc/loadavg": "0.36\n", "proc/sys/kernel/pid_max": "1\n", "proc/sys/kernel/threads-max": "1\n"}).Tasks(); err == nil {
		t.Errorf("half a line reads as %d of %d", now, most)
	}
}

func TestThisMachine(t *testing.T) {
	const m = Linux("/")
	if memory, err := m.Memory(); err != nil || memory.WorkingSet <= 0 || memory.Used < memory.WorkingSet {
		t.Errorf("memory %+v, %v", memory, err)
	}
	if cpu, err := m.CPU(); err != nil || cpu <= 0 {
		t.Errorf("CPU %d, %v", cpu, err)
	}
	if now, most, err := m.Tasks(); err != nil || now <= 0 || most <= now {
		t.Errorf("tasks %d of %d, %v", now, most, err)
	}
}
