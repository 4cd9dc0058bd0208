package registration

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"errand.dev/errand/internal/node/machine"
)

// Host knows the machine. Facts is called once.
type Host interface {
	Facts() (Facts, error)
}

// Facts are what doesn't change while errand runs. Sizes are in bytes.
type Facts struct {
	MilliCPU  int64 // thousandths of a core
	Memory    int64
	Swap      int64
	Disk      int64           // of the data directory's file system
	HugePages map[int64]int64 // page size → how many are set aside

	MachineID, SystemUUID, BootID string
	Kernel, OSImage               string
	Hostname                      string
}

// LinuxHost returns the machine that we run on. dataDir is the directory whose
// file system containers, images and logs are on.
func LinuxHost(dataDir string) Host { return &linux{root: "/", dataDir: dataDir} }

// linux reads /proc, /sys and /etc below root.
type linux struct{ root, dataDir string }

func (l *linux) Facts() (Facts, error) {
	memory, err := machine.Linux(l.root).Meminfo()
	if err != nil {
		return Facts{}, err
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(l.dataDir, &disk); err != nil {
		return Facts{}, &fs.PathError{Op: "statfs", Path: l.dataDir, Err: err}
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return Facts{}, fmt.Errorf("uname: %w", err)
	}
	f := Facts{
		MilliCPU:   atMost(int64(runtime.NumCPU())*1000, l.cpuLimit()),
		Memory:     atMost(memory["MemTotal"], l.memoryLimit()),
		Swap:       memory["SwapTotal"],
		Disk:       int64(disk.Blocks) * disk.Bsize,
		HugePages:  l.hugePages(),
		MachineID:  l.first("etc/machine-id", "var/lib/dbus/machine-id"),
		SystemUUID: l.first("sys/class/dmi/id/product_uuid", "sys/hypervisor/uuid", "proc/device-tree/vm,uuid", "etc/machine-id"),
		BootID:     l.first("proc/sys/kernel/random/boot_id"),
		Kernel:     unix.ByteSliceToString(uts.Release[:]),
		Hostname:   unix.ByteSliceToString(uts.Nodename[:]),
		OSImage:    l.osImage(),
	}
	return f, nil
}

// cpuLimit and memoryLimit are the limits of the outermost cgroup that we can
// see: those of a container or VM slice that errand and all its pods run in. 0
// means none; on a machine's own root there is none.
func (l *linux) cpuLimit() int64 {
	if quota, period, ok := strings.Cut(l.text("sys/fs/cgroup/cpu.max"), " "); ok {
		return parseCPUMax(quota, period)
	}
	return parseCPUMax(l.text("sys/fs/cgroup/cpu/cpu.cfs_quota_us"), l.text("sys/fs/cgroup/cpu/cpu.cfs_period_us"))
}

func (l *linux) memoryLimit() int64 {
	return max(l.number("sys/fs/cgroup/memory.max"), l.number("sys/fs/cgroup/memory/memory.limit_in_bytes"))
}

func atMost(n, limit int64) int64 {
	if limit > 0 && limit < n {
		return limit
	}
	return n
}

func (l *linux) hugePages() map[int64]int64 {
	pages := map[int64]int64{}
	entries, err := os.ReadDir(filepath.Join(l.root, "sys/kernel/mm/hugepages"))
	if err != nil {
		return pages // a kernel without huge pages
	}
	for _, e := range entries {
		kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimPrefix(e.Name(), "hugepages-"), "kB"), 10, 64)
		if err == nil {
			pages[kb*1024] = l.number(filepath.Join("sys/kernel/mm/hugepages", e.Name(), "nr_hugepages"))
		}
	}
	return pages
}

func (l *linux) osImage() string {
	for line := range strings.Lines(l.first("etc/os-release", "usr/lib/os-release")) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "PRETTY_NAME="); ok {
			return strings.Trim(name, `"'`)
		}
	}
	return "Linux"
}

// text is a file's content without surrounding space, "" if it can't be read:
// none of the files read so is on every machine.
func (l *linux) text(path string) string {
	data, err := os.ReadFile(filepath.Join(l.root, path))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(strings.TrimRight(string(data), "\x00"))
}

func (l *linux) first(paths ...string) string {
	for _, p := range paths {
		if text := l.text(p); text != "" {
			return text
		}
	}
	return ""
}

func (l *linux) number(path string) int64 {
	n, err := strconv.ParseInt(l.text(path), 10, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0 // missing, or "max"
	}
	return n
}
