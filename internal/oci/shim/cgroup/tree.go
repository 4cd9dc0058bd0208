// Package cgroup finds, kills and removes the cgroups of containers, on cgroup v1, v2 and the hybrid of both, and tells
// whether the kernel's OOM killer was in one.
//
// It doesn't create containers' cgroups and sets no limits: the OCI runtime does.
package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Tree is the machine's set of cgroup hierarchies: one on v2; on v1 one for each controller (or group of them), to which the
// hybrid layout adds a v2 one without controllers. A cgroup has the same path, absolute, in all of them.
type Tree struct {
	hierarchies []hierarchy
	proc        string // /proc
}

type hierarchy struct {
	dir         string // mount point
	root        string // which cgroup is mounted there: "/", but for a container that has no cgroup namespace
	v2          bool
	controllers []string // v1 only; a named hierarchy has "name=x"
}

// Open reads the hierarchies from /proc/self/mountinfo. A machine without any gives an empty Tree, in which nothing is ever found.
func Open() (*Tree, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parse(f)
}

func parse(mountinfo io.Reader) (*Tree, error) {
	t := &Tree{proc: "/proc"}
	seen := map[string]bool{}
	lines := bufio.NewScanner(mountinfo)
	for lines.Scan() {
		// 35 24 0:30 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu
		before, after, ok := strings.Cut(lines.Text(), " - ")
		mount, super := strings.Fields(before), strings.Fields(after)
		if !ok || len(mount) < 6 || len(super) < 3 || (super[0] != "cgroup" && super[0] != "cgroup2") {
			continue
		}
		// A hierarchy may be mounted in several places; the first one is the machine's own.
		if device := mount[2]; seen[device] {
			continue
		} else {
			seen[device] = true
		}
		h := hierarchy{dir: unescape(mount[4]), root: unescape(mount[3]), v2: super[0] == "cgroup2"}
		if !h.v2 {
			h.controllers = strings.Split(super[2], ",")
		}
		t.hierarchies = append(t.hierarchies, h)
	}
	return t, lines.Err()
}

// is reports whether h is the hierarchy that /proc/<pid>/cgroup names by its controllers, v2 by none.
func (h hierarchy) is(controllers string) bool {
	first, _, _ := strings.Cut(controllers, ",")
	return h.v2 == (first == "") && (h.v2 || slices.Contains(h.controllers, first))
}

// unescape undoes mountinfo's octal escapes of white space and backslashes.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// unified is the directory of path in the v2 hierarchy, "" if there is no such.
func (t *Tree) unified(path string) string {
	for _, h := range t.hierarchies {
		if h.v2 {
			return existing(filepath.Join(h.dir, path))
		}
	}
	return ""
}

// controller is the directory of path in the v1 hierarchy of a controller, "" if there is no such.
func (t *Tree) controller(name, path string) string {
	for _, h := range t.hierarchies {
		if slices.Contains(h.controllers, name) {
			return existing(filepath.Join(h.dir, path))
		}
	}
	return ""
}

func existing(dir string) string {
	if _, err := os.Stat(dir); err != nil {
		return ""
	}
	return dir
}

// Join moves the calling process into the cgroup path of every hierarchy, making it where needed. It does what it can
// and returns what it couldn't.
func (t *Tree) Join(path string) error {
	var errs []error
	for _, h := range t.hierarchies {
		if err := h.join(path); err != nil {
			errs = append(errs, fmt.Errorf("join cgroup: %w", err))
		}
	}
	return errors.Join(errs...)
}

func (h hierarchy) join(path string) error {
	dir := h.dir
	for _, name := range strings.Split(strings.Trim(path, "/"), "/") {
		dir = filepath.Join(dir, name)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if slices.Contains(h.controllers, "cpuset") {
			if err := inheritCPUSet(dir); err != nil {
				return err
			}
		}
	}
	return write(filepath.Join(dir, "cgroup.procs"), strconv.Itoa(os.Getpid()))
}

// inheritCPUSet fills a new v1 cpuset, which takes no process while it is empty.
func inheritCPUSet(dir string) error {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		own, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || len(strings.TrimSpace(string(own))) > 0 {
			continue // not a cpuset, or filled already
		}
		parent, err := os.ReadFile(filepath.Join(filepath.Dir(dir), name))
		if err != nil {
			return err
		}
		if err := write(filepath.Join(dir, name), strings.TrimSpace(string(parent))); err != nil {
			return err
		}
	}
	return nil
}

// OOMKilled reports whether the kernel's OOM killer killed a process of the cgroup.
func (t *Tree) OOMKilled(path string) bool {
	if dir := t.controller("memory", path); dir != "" {
		return counter(filepath.Join(dir, "memory.oom_control"), "oom_kill") > 0
	}
	if dir := t.unified(path); dir != "" {
		return counter(filepath.Join(dir, "memory.events"), "oom_kill") > 0
	}
	return false
}

// counter reads a "name value" line of a flat-keyed file; 0 if there is none.
func counter(file, name string) uint64 {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), name+" "); ok {
			n, _ := strconv.ParseUint(value, 10, 64)
			return n
		}
	}
	return 0
}

func write(file, value string) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}
