package podserver

import (
	"os"
	"path/filepath"
	"testing"
)

func TestLinuxMachine(t *testing.T) {
	const meminfo = "MemTotal: 1000 kB\nMemFree: 400 kB\nInactive(file): 100 kB\nSwapTotal: 50 kB\nSwapFree: 30 kB\n"
	for name, tc := range map[string]struct {
		files                 map[string]string
		cpu, used, workingSet uint64
	}{
		"version 2, the machine's root": {
			files: map[string]string{"sys/fs/cgroup/cpu.stat": "usage_usec 7\nuser_usec 5\n"},
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
				"sys/fs/cgroup/memory/memory.stat":           "total_inactive_file 6000\n",
			},
			cpu: 9, used: 5000, workingSet: 0,
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			tc.files["proc/meminfo"] = meminfo
			for path, text := range tc.files {
				path = filepath.Join(root, path)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			u, err := linuxMachine{root}.Usage()
			if err != nil {
				t.Fatal(err)
			}
			if u.CPUNanos != tc.cpu || u.Used != tc.used || u.WorkingSet != tc.workingSet || u.SwapUsed != 20<<10 || u.At.IsZero() {
				t.Errorf("got %+v", u)
			}
		})
	}
	if _, err := (linuxMachine{t.TempDir()}).Usage(); err == nil {
		t.Error("no error without files")
	}
	if u, err := LinuxMachine().Usage(); err != nil || u.CPUNanos == 0 || u.WorkingSet == 0 {
		t.Errorf("this machine: %+v, %v", u, err)
	}
}
