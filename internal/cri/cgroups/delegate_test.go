package cgroups

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// kernel makes a folder behave like cgroups of version 2, as far as the rule
// goes that a cgroup below the machine's root has processes or children with
// controllers, not both.
func (f fakeTree) kernel(file, value string) error {
	dir := filepath.Dir(file)
	switch filepath.Base(file) {
	case "cgroup.subtree_control":
		procs, _ := fields(filepath.Join(dir, "cgroup.procs"))
		_, err := os.Stat(filepath.Join(dir, "cgroup.type"))
		if ordinary := err == nil; ordinary && len(procs) > 0 && strings.Contains(value, "memory") {
			return unix.EBUSY
		}
		had, _ := fields(file)
		return os.WriteFile(file, []byte(strings.Join(append(had, strings.ReplaceAll(value, "+", "")), " ")), 0o600)
	case "cgroup.procs":
		if value == "3" {
			return unix.ESRCH // it ended meanwhile
		}
		left, _ := fields(filepath.Join(f.root, "cgroup.procs"))
		left = slices.DeleteFunc(left, func(pid string) bool { return pid == value || pid == "3" })
		had, _ := fields(file)
		return errors.Join(
			os.WriteFile(filepath.Join(f.root, "cgroup.procs"), []byte(strings.Join(left, "\n")), 0o600),
			os.WriteFile(file, []byte(strings.Join(append(had, value), " ")), 0o600),
		)
	}
	return write(file, value)
}

func makeContainer(t *testing.T, procs string) (fakeTree, *Tree) {
	f, tree := makeV2(t)
	f.put("cgroup.type", "domain\n")
	f.put("cgroup.procs", procs)
	f.put("cgroup.subtree_control", "")
	tree.write = f.kernel
	return f, tree
}

func TestProcessesInTheRootOfAContainerMakeRoom(t *testing.T) {
	f, tree := makeContainer(t, "1\n3\n7\n")
	if err := tree.Create("/errand/pod", nil); err != nil {
		t.Fatal(err)
	}
	f.want("errand-init/cgroup.procs", "1 7")
	for _, dir := range []string{"", "errand/", "errand/pod/"} {
		f.want(dir+"cgroup.subtree_control", "cpu memory pids")
	}
}

func TestTheMachinesRootKeepsItsProcesses(t *testing.T) {
	f, tree := makeContainer(t, "1\n7\n")
	if err := os.Remove(filepath.Join(f.root, "cgroup.type")); err != nil {
		t.Fatal(err)
	}
	if err := tree.Create("/errand/pod", nil); err != nil {
		t.Fatal(err)
	}
	f.want("cgroup.procs", "1\n7\n")
	if tree.Exists("/errand-init") {
		t.Error("a cgroup was made for them")
	}
}

// Half of the controllers would be worse than none: cgroups below could hold no
// processes.
func TestNoControllersBesideProcesses(t *testing.T) {
	f, tree := makeContainer(t, "0\n7\n")
	if err := tree.Create("/errand/pod", nil); err == nil || !strings.Contains(err.Error(), "cgroupns=private") {
		t.Errorf("got %v", err)
	}
	f.want("cgroup.subtree_control", "")
	f, tree = makeContainer(t, "")
	f.put("errand/cgroup.type", "domain\n")
	f.put("errand/cgroup.procs", "7\n")
	if err := tree.Create("/errand/pod", nil); !errors.Is(err, unix.EBUSY) {
		t.Errorf("got %v", err)
	}
	f.want("errand/cgroup.subtree_control", "")
}

func TestOneControllerThatCannotBeDelegated(t *testing.T) {
	f, tree := makeV2(t)
	tree.write = func(file, value string) error {
		if strings.Contains(value, "cpu") {
			return unix.EINVAL
		}
		return f.kernel(file, value)
	}
	if err := tree.Create("/errand/pod", nil); err != nil {
		t.Fatal(err)
	}
	f.want("errand/cgroup.subtree_control", "memory pids")
}
