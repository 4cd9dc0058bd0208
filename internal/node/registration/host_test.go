package registration

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// host writes the files of a machine below a temporary root.
func host(t *testing.T, files map[string]string) *linux {
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
	return &linux{root: root, dataDir: root}
}

const meminfo = "MemTotal:       16000000 kB\nMemFree:  1 kB\nMemAvailable:    8000000 kB\nHugePages_Total:       0\nSwapTotal:       2000000 kB\n"

func TestFacts(t *testing.T) {
	l := host(t, map[string]string{
		"proc/meminfo":                   meminfo,
		"proc/sys/kernel/random/boot_id": "boot\n",
		"etc/machine-id":                 "machine\n",
		"sys/class/dmi/id/product_uuid":  "UUID\n",
		"etc/os-release":                 "NAME=\"X\"\nPRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\n",
		"sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages":    "3\n",
		"sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages": "0\n",
	})
	f, err := l.Facts()
	if err != nil {
		t.Fatal(err)
	}
	if f.MilliCPU < 1000 || f.Disk <= 0 || f.Kernel == "" || f.Hostname == "" {
		t.Errorf("of this machine: %+v", f)
	}
	f.MilliCPU, f.Disk, f.Kernel, f.Hostname = 0, 0, "", ""
	want := Facts{
		Memory: 16000000 * 1024, Swap: 2000000 * 1024,
		HugePages: map[int64]int64{2 << 20: 3, 1 << 30: 0},
		MachineID: "machine", SystemUUID: "UUID", BootID: "boot", OSImage: "Debian GNU/Linux 13 (trixie)",
	}
	if diff := cmp.Diff(want, f); diff != "" {
		t.Error(diff)
	}
}

// In a container or slice that limits everything, the limit is the capacity.
func TestFactsWithinACgroup(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"v2": {"sys/fs/cgroup/cpu.max": "50000 100000\n", "sys/fs/cgroup/memory.max": "1048576\n"},
		"v1": {
			"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "1048576\n",
		},
	} {
		files["proc/meminfo"] = meminfo
		f, err := host(t, files).Facts()
		if err != nil || f.MilliCPU != 500 || f.Memory != 1<<20 {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
	}
	unlimited := map[string]string{
		"proc/meminfo": meminfo, "sys/fs/cgroup/cpu.max": "max 100000\n", "sys/fs/cgroup/memory.max": "max\n",
		"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n", "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
	}
	if f, err := host(t, unlimited).Facts(); err != nil || f.Memory != 16000000*1024 || f.MilliCPU < 1000 {
		t.Errorf("unlimited: %+v, %v", f, err)
	}
}

func TestTheRealMachine(t *testing.T) {
	host := LinuxHost(t.TempDir())
	f, err := host.Facts()
	if err != nil || f.BootID == "" || f.OSImage == "" {
		t.Errorf("%+v, %v", f, err)
	}
}
