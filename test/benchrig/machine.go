package benchrig

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"errand.dev/errand/test/harness"
)

// tick is the unit of the kernel's CPU times: USER_HZ, 100 a second on every
// architecture that Go runs on.
const tick = 10 * time.Millisecond

// Machine describes what the figures were measured on.
func Machine() string {
	model := "unknown processor"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if name, ok := strings.CutPrefix(line, "model name\t: "); ok {
				model = strings.TrimSpace(name)
				break
			}
		}
	}
	var u unix.Utsname
	kernel := "unknown kernel"
	if unix.Uname(&u) == nil {
		kernel = unix.ByteSliceToString(u.Release[:])
	}
	cgroups := "v1"
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		cgroups = "v2"
	}
	return fmt.Sprintf("%d × %s, Linux %s, cgroups %s, %s", runtime.NumCPU(), model, kernel, cgroups, runtime.Version())
}

// busyTime is the CPU time that the whole machine has spent since it started.
func busyTime() time.Duration {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(b), "\n")
	var busy time.Duration
	for i, field := range strings.Fields(first)[1:] {
		if i == 3 || i == 4 || i >= 8 { // idle, iowait; guests are in user already
			continue
		}
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0
		}
		busy += time.Duration(n) * tick
	}
	return busy
}

// Usage is what an errand and the machine have spent by a moment.
type Usage struct {
	At time.Time
	// Machine is all of it; Runtime is what the shim's children have spent that
	// have ended: OCI runtimes and containers.
	Machine, Errand, Shim, Runtime time.Duration
	// ErrandMemory and ShimMemory are what the two hold.
	ErrandMemory, ShimMemory Memory
}

// Memory is what a process holds, in bytes: all that is resident, shared pages
// included, and of that what is anonymous.
type Memory struct{ Resident, Anonymous int64 }

// Add returns the sum.
func (m Memory) Add(o Memory) Memory {
	return Memory{m.Resident + o.Resident, m.Anonymous + o.Anonymous}
}

// Look takes an errand's usage at this moment.
func Look(e *harness.Errand) (Usage, error) {
	u := Usage{At: time.Now(), Machine: busyTime()}
	shim, err := e.ShimPID()
	if err != nil {
		return u, err
	}
	if u.Errand, _, err = cpuTime(e.PID()); err != nil {
		return u, err
	}
	if u.Shim, u.Runtime, err = cpuTime(shim); err != nil {
		return u, err
	}
	if u.ErrandMemory, err = memory(e.PID()); err != nil {
		return u, err
	}
	u.ShimMemory, err = memory(shim)
	return u, err
}

// cpuTime is the user and system time of a process and of its children that
// have ended, in steps of a tick.
func cpuTime(pid int) (own, children time.Duration, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	// The second field, in parentheses, may hold blanks.
	_, rest, _ := strings.Cut(string(b), ") ")
	var ticks [4]int64
	for i, f := range strings.Fields(rest)[11:15] {
		if ticks[i], err = strconv.ParseInt(f, 10, 64); err != nil {
			return 0, 0, err
		}
	}
	return time.Duration(ticks[0]+ticks[1]) * tick, time.Duration(ticks[2]+ticks[3]) * tick, nil
}

// CPU is the user and system time of an errand's process.
func CPU(e *harness.Errand) (time.Duration, error) {
	own, _, err := cpuTime(e.PID())
	return own, err
}

func memory(pid int) (Memory, error) {
	var m Memory
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return m, err
	}
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(line, ":")
		if name != "VmRSS" && name != "RssAnon" {
			continue
		}
		kb, err := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
		if err != nil {
			return m, fmt.Errorf("read %s of process %d: %w", name, pid, err)
		}
		if name == "VmRSS" {
			m.Resident = kb << 10
		} else {
			m.Anonymous = kb << 10
		}
	}
	return m, nil
}

// FileCost is the CPU that the kernel takes to make a file, or a folder, below a
// folder. It is what errand does some twenty times for a pod, and differs between
// file systems by a factor of fifty.
func FileCost(dir string) (time.Duration, error) {
	const files = 500
	dir, err := os.MkdirTemp(dir, "files")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	runtime.LockOSThread() // whose time is taken
	defer runtime.UnlockOSThread()
	var before, after unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &before); err != nil {
		return 0, err
	}
	for i := range files {
		if err := os.Mkdir(filepath.Join(dir, strconv.Itoa(i)), 0o700); err != nil {
			return 0, err
		}
	}
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &after); err != nil {
		return 0, err
	}
	spent := after.Stime.Nano() + after.Utime.Nano() - before.Stime.Nano() - before.Utime.Nano()
	return time.Duration(spent) / files, nil
}

// Pass lets time pass, which is what is measured then.
func Pass(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
