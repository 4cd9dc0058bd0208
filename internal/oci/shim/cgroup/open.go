package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Membership is what a new process enters a cgroup by, in every hierarchy. It is to be closed.
type Membership struct {
	// V2 is the cgroup's directory in the v2 hierarchy, -1 if there is no such; for clone3's CLONE_INTO_CGROUP.
	V2 int
	// V1 are the cgroups in v1 hierarchies.
	V1 []V1
}

// V1 is a cgroup of version 1.
type V1 struct {
	// Name of the hierarchy's directory; Aliases are the controllers in it if there are several, as in "cpu,cpuacct".
	Name    string
	Aliases []string
	Dir     string
	// Tasks takes "0" from a thread that wants to be in the cgroup. Unlike cgroup.procs it doesn't have all threads of the machine
	// wait.
	Tasks int
}

// Open opens a cgroup that exists; hierarchies in which it doesn't are left out.
func (t *Tree) Open(path string) (*Membership, error) {
	m := &Membership{V2: -1}
	for _, h := range t.hierarchies {
		err := m.add(h, filepath.Join(h.dir, path))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			m.Close()
			return nil, fmt.Errorf("open cgroup: %w", err)
		}
	}
	if m.V2 < 0 && len(m.V1) == 0 {
		return nil, fmt.Errorf("open cgroup: %s: %w", path, fs.ErrNotExist)
	}
	return m, nil
}

func (m *Membership) add(h hierarchy, dir string) error {
	if h.v2 {
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return &os.PathError{Op: "open", Path: dir, Err: err}
		}
		m.V2 = fd
		return nil
	}
	tasks := filepath.Join(dir, "tasks")
	fd, err := unix.Open(tasks, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: tasks, Err: err}
	}
	g := V1{Name: filepath.Base(h.dir), Dir: dir, Tasks: fd}
	if several := strings.Split(g.Name, ","); len(several) > 1 {
		g.Aliases = several
	}
	m.V1 = append(m.V1, g)
	return nil
}

// Close closes what Open has opened.
func (m *Membership) Close() {
	if m.V2 >= 0 {
		_ = unix.Close(m.V2)
	}
	for _, g := range m.V1 {
		_ = unix.Close(g.Tasks)
	}
}

// UnifiedOnly is the directory of a cgroup, whether it exists or not, on a machine whose only hierarchy is v2; "" on others.
func (t *Tree) UnifiedOnly(path string) string {
	if len(t.hierarchies) == 1 && t.hierarchies[0].v2 {
		return filepath.Join(t.hierarchies[0].dir, path)
	}
	return ""
}

// Paths are the directories of a cgroup, whether they exist or not, by the names that /proc/<pid>/cgroup has for their
// hierarchies, one for each controller; "" is the v2 one.
func (t *Tree) Paths(path string) map[string]string {
	paths := map[string]string{}
	for _, h := range t.hierarchies {
		dir := filepath.Join(h.dir, path)
		if h.v2 {
			paths[""] = dir
		}
		for _, c := range h.controllers {
			paths[c] = dir
		}
	}
	return paths
}
