package main

import (
	"context"
	"fmt"
	"os"
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

// machine describes what the figures were measured on.
func machine() string {
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

// usage is what an errand and the machine have spent by a moment.
type usage struct {
	at time.Time
	// machine is all of it; runtime is what the shim's children have spent that
	// have ended: OCI runtimes and containers.
	machine, errand, shim, runtime time.Duration
	// resident and anonymous are bytes of errand's and the shim's memory.
	resident, anonymous int64
}

func look(e *harness.Errand) (usage, error) {
	u := usage{at: time.Now(), machine: busyTime()}
	shim, err := e.ShimPID()
	if err != nil {
		return u, err
	}
	if u.errand, _, err = cpuTime(e.PID()); err != nil {
		return u, err
	}
	if u.shim, u.runtime, err = cpuTime(shim); err != nil {
		return u, err
	}
	for _, pid := range []int{e.PID(), shim} {
		if err := addMemory(&u, pid); err != nil {
			return u, err
		}
	}
	return u, nil
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

// addMemory adds a process's resident memory, shared pages included.
func addMemory(u *usage, pid int) error {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(line, ":")
		if name != "VmRSS" && name != "RssAnon" {
			continue
		}
		kb, err := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
		if err != nil {
			return fmt.Errorf("read %s of process %d: %w", name, pid, err)
		}
		if name == "VmRSS" {
			u.resident += kb << 10
		} else {
			u.anonymous += kb << 10
		}
	}
	return nil
}

// pass lets time pass, which is what is measured here.
func pass(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
