// Package cgroups owns the pods' level of the cgroup tree: it makes a pod's
// cgroup with the pod's limits, reads usage, kills what is in it and removes
// it. The containers' cgroups below are the OCI runtime's.
//
// Version 2 and version 1 (also the hybrid of both, with the controllers on
// version 1) are behind one Tree. All paths are from the root of a hierarchy,
// such as "/errand/pod1234"; on version 1 one path stands for the same
// directory in each hierarchy.
package cgroups

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// DefaultRoot is where distributions mount cgroups.
const DefaultRoot = "/sys/fs/cgroup"

// Tree is a host's cgroups. It is safe for concurrent use as long as no two
// callers change one path.
type Tree struct {
	root string
	v2   bool
	// hierarchies are the directories of all mounted hierarchies: one on
	// version 2.
	hierarchies []string
	// pids is how many processes each cgroup that Create makes may have; 0 for
	// no limit.
	pids int64
	// write writes a file of the kernel's.
	write func(file, value string) error
}

// Open looks at what is mounted at root.
func Open(root string) (*Tree, error) {
	if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err == nil {
		return &Tree{root: root, v2: true, hierarchies: []string{root}, write: write}, nil
	}
	t := &Tree{root: root, write: write}
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, fmt.Errorf("look for cgroups: %w", err)
	}
	for _, e := range entries {
		// Links are second names of a hierarchy (cpuacct → cpu,cpuacct).
		dir := filepath.Join(root, e.Name())
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err == nil && e.IsDir() {
			t.hierarchies = append(t.hierarchies, dir)
		}
	}
	if len(t.hierarchies) == 0 {
		return nil, fmt.Errorf("no cgroups are mounted at %s: mount cgroup2 there", root)
	}
	return t, nil
}

// V2 says whether the unified hierarchy carries the controllers.
func (t *Tree) V2() bool { return t.v2 }

// LimitsSwap says whether version 2 can limit swap alone, which a kernel without
// swap, or told not to account it, can't.
func (t *Tree) LimitsSwap() bool {
	// The machine's own root has no such file, a cgroup below it has.
	found, _ := filepath.Glob(filepath.Join(t.root, "*", "memory.swap.max"))
	_, err := os.Stat(filepath.Join(t.root, "memory.swap.max"))
	return t.v2 && (err == nil || len(found) > 0)
}

// Root is where the cgroups are mounted.
func (t *Tree) Root() string { return t.root }

// LimitPids sets how many processes and threads may be in each cgroup that
// Create makes from now on, those below it included; 0 for no limit. It must
// not be called while others use the tree.
func (t *Tree) LimitPids(n int64) { t.pids = n }

// Create makes the cgroup, and those above it, and sets its limits. It is
// idempotent.
func (t *Tree) Create(path string, limits Limits) error {
	if err := valid(path); err != nil {
		return err
	}
	for _, h := range t.hierarchies {
		if err := os.MkdirAll(filepath.Join(h, path), 0o755); err != nil {
			return fmt.Errorf("make the cgroup %s: %w", path, err)
		}
	}
	if t.v2 {
		if err := t.delegate(path); err != nil {
			return err
		}
	}
	if t.pids > 0 {
		if err := t.set(path, setting{t.pidsFile(), strconv.FormatInt(t.pids, 10)}); err != nil {
			return err
		}
	}
	return t.Update(path, limits)
}

func (t *Tree) pidsFile() string {
	if t.v2 {
		return "pids.max"
	}
	return "pids/pids.max"
}

// valid keeps a path from leaving the tree, or from being its root.
func valid(path string) error {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path || path == "/" {
		return fmt.Errorf("cgroup path %q: want an absolute, clean path below the root", path)
	}
	return nil
}

// write sets a cgroup's file, which must be there already: a file that the
// kernel doesn't offer must not come to be by being written.
func write(file, value string) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// Exists says whether the cgroup is there in any hierarchy.
func (t *Tree) Exists(path string) bool {
	return slices.ContainsFunc(t.hierarchies, func(h string) bool {
		_, err := os.Stat(filepath.Join(h, path))
		return err == nil
	})
}

// Remove removes the cgroup and those below it. It is idempotent. A cgroup
// with processes in it is an error that wraps unix.EBUSY.
func (t *Tree) Remove(path string) error {
	if err := valid(path); err != nil {
		return err
	}
	var errs []error
	for _, h := range t.hierarchies {
		if err := removeAll(filepath.Join(h, path)); err != nil {
			errs = append(errs, fmt.Errorf("remove the cgroup %s: %w", path, err))
		}
	}
	return errors.Join(errs...)
}

// removeAll removes directories from the leaves up. A cgroup's files can't be
// removed by themselves, so os.RemoveAll won't do.
func removeAll(dir string) error {
	err := unix.Rmdir(dir)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOTEMPTY) {
		return &fs.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	children, rerr := subdirectories(dir)
	if rerr != nil {
		return rerr
	}
	for _, c := range children {
		if err := removeAll(c); err != nil {
			return err
		}
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return &fs.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	return nil
}

func subdirectories(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() {
			out = append(out, filepath.Join(dir, e.Name()))
		}
	}
	return out, nil
}

// Children returns the names of the cgroups right below path, over all
// hierarchies.
func (t *Tree) Children(path string) ([]string, error) {
	var names []string
	for _, h := range t.hierarchies {
		dirs, err := subdirectories(filepath.Join(h, path))
		if err != nil {
			return nil, fmt.Errorf("list the cgroups below %s: %w", path, err)
		}
		for _, d := range dirs {
			if name := filepath.Base(d); !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names, nil
}
