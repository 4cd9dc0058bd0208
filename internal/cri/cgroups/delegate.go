package cgroups

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// initCgroup is where the processes of a root that may have none are moved to.
const initCgroup = "errand-init"

// evacuations bounds how often the root is emptied anew: what is there may fork.
const evacuations = 10

// delegate enables in each ancestor the controllers that it has, so that path
// gets the files that carry its limits, and in path those for its children.
func (t *Tree) delegate(path string) error {
	if err := t.delegateRoot(); err != nil {
		return err
	}
	dir := t.root
	for _, part := range strings.Split(strings.TrimPrefix(path, "/"), "/") {
		dir = filepath.Join(dir, part)
		if err := t.enable(dir); err != nil {
			return err
		}
	}
	return nil
}

// delegateRoot makes room in the root where that is needed. The machine's own
// root may hold processes beside its children. In a container (a CI job, a
// devcontainer) "root" is an ordinary cgroup, which may not, and PID 1 and its
// like are in it: they go to a cgroup of their own, as k3s and kind have it.
// Only an ordinary cgroup has a cgroup.type.
func (t *Tree) delegateRoot() error {
	err := t.enable(t.root)
	if _, serr := os.Stat(filepath.Join(t.root, "cgroup.type")); serr != nil {
		return err
	}
	for range evacuations {
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		if merr := t.evacuateRoot(); merr != nil {
			return merr
		}
		err = t.enable(t.root)
	}
	return err
}

func (t *Tree) evacuateRoot() error {
	target := filepath.Join(t.root, initCgroup)
	if err := os.Mkdir(target, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make a cgroup for this container's processes: %w", err)
	}
	pids, err := fields(filepath.Join(t.root, "cgroup.procs"))
	if err != nil {
		return fmt.Errorf("list this container's processes: %w", err)
	}
	for _, pid := range pids {
		if pid == "0" {
			return fmt.Errorf("enable controllers in %s: processes of another PID namespace are in it, and can't be moved from here: run errand in a cgroup namespace of its own (docker run --cgroupns=private)", t.root)
		}
		if err := t.write(filepath.Join(target, "cgroup.procs"), pid); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("move process %s of this container to the cgroup %s: %w", pid, target, err)
		}
	}
	return nil
}

// enable enables in dir all controllers that it has.
func (t *Tree) enable(dir string) error {
	available, err := fields(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("list the controllers: %w", err)
	}
	enabled, err := fields(filepath.Join(dir, "cgroup.subtree_control"))
	if err != nil {
		return fmt.Errorf("list the enabled controllers: %w", err)
	}
	var missing []string
	for _, c := range available {
		if !slices.Contains(enabled, c) {
			missing = append(missing, "+"+c)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	file := filepath.Join(dir, "cgroup.subtree_control")
	err = t.write(file, strings.Join(missing, " "))
	// EBUSY means that processes are in the way, EOPNOTSUPP that somebody went on
	// without the controllers that mind: threaded ones (cpu, pids) can be enabled
	// nevertheless, but make the cgroups below invalid, unable to hold processes.
	if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("enable controllers in %s: %w", dir, err)
	}
	if err != nil {
		return t.enableOneByOne(dir, missing)
	}
	return nil
}

// enableOneByOne doesn't let one controller that can't be delegated (cpu beside
// real-time tasks, say) keep the others away.
func (t *Tree) enableOneByOne(dir string, controllers []string) error {
	var errs []error
	for _, c := range controllers {
		if err := t.write(filepath.Join(dir, "cgroup.subtree_control"), c); err != nil {
			errs = append(errs, fmt.Errorf("enable the controller %s in %s: %w", c[1:], dir, err))
		}
	}
	if len(errs) == len(controllers) {
		return errors.Join(errs...)
	}
	return nil
}

func fields(file string) ([]string, error) {
	b, err := os.ReadFile(file)
	return strings.Fields(string(b)), err
}
