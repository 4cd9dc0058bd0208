package cgroups

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"errand.dev/errand/internal/oci/shim/cgroup"
)

// Kill kills every process in the cgroup and below. It returns once all have
// been sent SIGKILL, which is before the last has gone. A cgroup that isn't
// there has none.
func (t *Tree) Kill(path string) error {
	if err := valid(path); err != nil {
		return err
	}
	if t.v2 {
		err := write(t.file(path, "cgroup.kill"), "1")
		if err == nil || !t.Exists(path) {
			return nil
		}
		if !errors.Is(err, fs.ErrNotExist) { // the file came with Linux 5.14
			return fmt.Errorf("kill the cgroup %s: %w", path, err)
		}
	}
	return t.killOneByOne(path)
}

// AwaitEmpty waits until the cgroup and those below it have no processes any
// more, or patience has passed. It returns false at once where there is nothing
// to wait for, and on version 1, where the kernel doesn't tell.
func (t *Tree) AwaitEmpty(path string, patience time.Duration) (waited bool) {
	return t.v2 && cgroup.AwaitEmpty(filepath.Join(t.root, path), patience)
}

// killOneByOne holds the processes still while it kills, so that none can
// fork away, and goes on until a round finds none that wasn't killed yet.
func (t *Tree) killOneByOne(path string) error {
	killed := map[int]bool{}
	for {
		t.freeze(path, true)
		pids, err := t.Processes(path)
		fresh := 0
		for _, pid := range pids {
			if !killed[pid] {
				killed[pid] = true
				fresh++
			}
			if kerr := unix.Kill(pid, unix.SIGKILL); kerr != nil && !errors.Is(kerr, unix.ESRCH) {
				err = errors.Join(err, fmt.Errorf("kill process %d: %w", pid, kerr))
			}
		}
		t.freeze(path, false)
		if err != nil {
			return fmt.Errorf("kill the cgroup %s: %w", path, err)
		}
		if fresh == 0 {
			return nil
		}
	}
}

// freeze is a help, not a need: without it the killing takes more rounds.
func (t *Tree) freeze(path string, on bool) {
	file, value := "cgroup.freeze", map[bool]string{true: "1", false: "0"}
	if !t.v2 {
		file, value = "freezer/freezer.state", map[bool]string{true: "FROZEN", false: "THAWED"}
	}
	_ = write(t.file(path, file), value[on])
}

// Processes returns the processes in the cgroup and below, over all
// hierarchies, in no order.
func (t *Tree) Processes(path string) ([]int, error) {
	seen := map[int]bool{}
	for _, h := range t.hierarchies {
		if err := processes(filepath.Join(h, path), seen); err != nil {
			return nil, fmt.Errorf("list the processes of the cgroup %s: %w", path, err)
		}
	}
	pids := make([]int, 0, len(seen))
	for pid := range seen {
		pids = append(pids, pid)
	}
	return pids, nil
}

func processes(dir string, into map[int]bool) error {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, line := range bytes.Fields(b) {
		pid, err := strconv.Atoi(string(line))
		if err != nil {
			return fmt.Errorf("%s/cgroup.procs: %w", dir, err)
		}
		if pid > 0 { // 0 is a process outside of our PID namespace
			into[pid] = true
		}
	}
	children, err := subdirectories(dir)
	if err != nil {
		return err
	}
	for _, c := range children {
		if err := processes(c, into); err != nil {
			return err
		}
	}
	return nil
}
