package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrBusy says that processes of a cgroup survived SIGKILL (they hang in the kernel), or that the kernel wouldn't remove it.
var ErrBusy = errors.New("cgroup is busy")

// Kill kills every process of the cgroup and of those below it, frozen ones too, and returns once they have ended or
// ErrBusy after patience. A cgroup that doesn't exist has none.
func (t *Tree) Kill(path string, patience time.Duration) error {
	if !t.populated(path) {
		return nil
	}
	deadline := time.Now().Add(patience)
	if dir := t.unified(path); dir != "" {
		// Kills all of them at once, so that none can escape by forking (Linux 5.14).
		_ = write(filepath.Join(dir, "cgroup.kill"), "1")
	}
	for {
		pids := t.Pids(path)
		if len(pids) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%w: %s: processes %v can't be killed", ErrBusy, path, pids)
		}
		if err := t.killRound(path, pids, deadline); err != nil {
			return err
		}
	}
}

// killRound kills pids, frozen so that they can't outrun it by forking, and waits until they have ended.
func (t *Tree) killRound(path string, pids []int, deadline time.Time) error {
	freezer := t.controller("freezer", path)
	if freezer != "" && len(pids) > 1 {
		_ = write(filepath.Join(freezer, "freezer.state"), "FROZEN")
		pids = t.Pids(path)
	}
	var waiting []unix.PollFd
	defer func() {
		for _, w := range waiting {
			unix.Close(int(w.Fd))
		}
	}()
	for _, pid := range pids {
		if fd := t.signal(path, pid, unix.SIGKILL); fd >= 0 {
			waiting = append(waiting, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
		}
	}
	if freezer != "" {
		_ = write(filepath.Join(freezer, "freezer.state"), "THAWED")
	}
	if len(waiting) == 0 {
		time.Sleep(time.Millisecond) // all were gone already, or none may be signalled: don't spin until the deadline
	}
	if !wait(waiting, deadline) {
		return fmt.Errorf("%w: %s: processes %v survived SIGKILL", ErrBusy, path, t.Pids(path))
	}
	return nil
}

// wait polls pidfds until all processes have ended.
func wait(fds []unix.PollFd, deadline time.Time) bool {
	pending := append([]unix.PollFd(nil), fds...)
	for len(pending) > 0 {
		left := time.Until(deadline)
		if left <= 0 {
			return false
		}
		if _, err := unix.Poll(pending, int(left.Milliseconds())+1); err != nil && !errors.Is(err, unix.EINTR) {
			return false
		}
		still := pending[:0]
		for _, p := range pending {
			if p.Revents == 0 {
				still = append(still, p)
			}
		}
		pending = still
	}
	return true
}

// Signal sends sig to every process of the cgroup and of those below it.
func (t *Tree) Signal(path string, sig unix.Signal) {
	for _, pid := range t.Pids(path) {
		if fd := t.signal(path, pid, sig); fd >= 0 {
			unix.Close(fd)
		}
	}
}

// signal signals a process if it is (still) in the cgroup, so that a reused pid can't be hit, and returns its pidfd; -1
// if there is nothing to wait for.
func (t *Tree) signal(path string, pid int, sig unix.Signal) int {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1
	}
	if !t.contains(path, pid) || unix.PidfdSendSignal(fd, sig, nil, 0) != nil {
		unix.Close(fd)
		return -1
	}
	return fd
}

// contains reports whether a process is in the cgroup, or one below it, of any hierarchy.
func (t *Tree) contains(path string, pid int) bool {
	data, err := os.ReadFile(filepath.Join(t.proc, strconv.Itoa(pid), "cgroup"))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(data)) {
		// 4:memory:/path
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(fields) < 3 {
			continue
		}
		for _, h := range t.hierarchies {
			full := filepath.Join(h.root, path)
			if h.is(fields[1]) && (fields[2] == full || strings.HasPrefix(fields[2], full+"/")) {
				return true
			}
		}
	}
	return false
}

// Pids lists the processes of the cgroup and of those below it, of all hierarchies.
func (t *Tree) Pids(path string) []int {
	seen := map[int]bool{}
	var pids []int
	for _, h := range t.hierarchies {
		walk(filepath.Join(h.dir, path), func(dir string) {
			data, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
			for _, field := range strings.Fields(string(data)) {
				// 0 stands for a process of another PID namespace.
				if pid, err := strconv.Atoi(field); err == nil && pid > 0 && !seen[pid] {
					seen[pid] = true
					pids = append(pids, pid)
				}
			}
		})
	}
	return pids
}

// populated reports whether the cgroup has processes. It is on the way of every container's exit, hence the short cut.
func (t *Tree) populated(path string) bool {
	if dir := t.unified(path); dir != "" {
		return counter(filepath.Join(dir, "cgroup.events"), "populated") > 0
	}
	return len(t.Pids(path)) > 0
}

// walk calls visit for dir and the directories below it, the deepest first.
func walk(dir string, visit func(dir string)) {
	st, err := os.Stat(dir)
	if err != nil {
		return
	}
	// A directory's link count tells whether there is anything below, nearly always nothing.
	if nlink, ok := links(st); !ok || nlink > 2 {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if e.IsDir() {
				walk(filepath.Join(dir, e.Name()), visit)
			}
		}
	}
	visit(dir)
}

func links(st fs.FileInfo) (uint64, bool) {
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return uint64(sys.Nlink), true
}

// Remove kills what is left in the cgroup and removes it with those below it in all hierarchies. It's no error if it
// doesn't exist. Errors: ErrBusy after patience, or the file system's.
func (t *Tree) Remove(path string, patience time.Duration) error {
	var errs []error
	deadline := time.Now().Add(patience)
	for _, h := range t.hierarchies {
		dir := filepath.Join(h.dir, path)
		err := remove(dir)
		for pause := time.Millisecond; errors.Is(err, unix.EBUSY); pause *= 2 {
			if err := t.Kill(path, time.Until(deadline)); err != nil {
				return err
			}
			// A process that has ended may still occupy its cgroup for a moment, and v1 has no event for that.
			if !AwaitEmpty(t.unified(path), time.Until(deadline)) {
				time.Sleep(pause)
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("%w: %s can't be removed", ErrBusy, dir)
			}
			err = remove(dir)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("remove cgroup: %w", err))
		}
	}
	return errors.Join(errs...)
}

func remove(dir string) error {
	err := unix.Rmdir(dir)
	if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.ENOTEMPTY) {
		walk(dir, func(d string) { err = unix.Rmdir(d) })
	}
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	return nil
}
