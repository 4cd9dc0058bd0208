// Package leakcheck finds what an errand has left on its host: processes,
// mounts, pinned namespaces, network interfaces, firewall tables and rules,
// cgroups and files. It is for tests.
//
// It knows an instance by the names that follow from its data directory
// (package instance), so that several tests, and a real errand, may use the
// machine at the same time without being taken for each other's leak.
package leakcheck

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/moby/sys/mountinfo"
	"github.com/vishvananda/netlink"

	"errand.dev/errand/internal/cri/network"
	"errand.dev/errand/internal/instance"
)

// grace is how long the kernel may take over what it ends in the background: a
// veth goes some time after its network namespace, a process some time after
// SIGKILL.
const grace = 5 * time.Second

// Check makes the test fail if something of the instance with that data
// directory is there at the test's end, the directory itself excepted. It must
// be called before the instance is started, so that its cleanup runs after all
// others. What was there before is told at once: it would hide a leak.
func Check(t testing.TB, dataDir string) {
	t.Helper()
	names, err := instance.For(dataDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, left := range find(t, names, dataDir) {
		t.Errorf("before the test there already is: %s", left)
	}
	t.Cleanup(func() {
		deadline := time.Now().Add(grace)
		left := find(t, names, dataDir)
		for delay := time.Millisecond; len(left) > 0 && time.Now().Before(deadline); delay *= 2 {
			time.Sleep(delay) // the kernel tells nobody when it's done
			left = find(t, names, dataDir)
		}
		for _, l := range left {
			t.Errorf("the test left: %s", l)
		}
	})
}

func find(t testing.TB, names instance.Names, dataDir string) []string {
	t.Helper()
	left, err := Find(names, dataDir)
	if err != nil {
		t.Errorf("look for leaks: %v", err)
	}
	return left
}

// Find returns what there is of an instance, in words. Of the data directory
// only mounts in it count.
func Find(names instance.Names, dataDir string) ([]string, error) {
	var left []string
	var errs []error
	for _, look := range []func(instance.Names, string) ([]string, error){processes, mounts, interfaces, tables, rules, cgroups, files} {
		found, err := look(names, dataDir)
		left, errs = append(left, found...), append(errs, err)
	}
	return left, errors.Join(errs...)
}

// processes are those in the instance's cgroups, and those that name one of its
// directories in their command line.
func processes(names instance.Names, dataDir string) ([]string, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var left []string
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		cmdline := readProc(pid, "cmdline")
		if inCgroup(readProc(pid, "cgroup"), names.CgroupParent) || mentions(cmdline, names.RuntimeDir) || mentions(cmdline, dataDir) {
			left = append(left, fmt.Sprintf("process %d: %s", pid, bytes.ReplaceAll(cmdline, []byte{0}, []byte{' '})))
		}
	}
	return left, nil
}

// readProc reads a file of a process's, nothing of one that has gone.
func readProc(pid int, file string) []byte {
	b, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), file))
	return b
}

func inCgroup(file []byte, parent string) bool {
	for line := range strings.Lines(string(file)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) == 3 && below(parts[2], parent) {
			return true
		}
	}
	return false
}

func mentions(cmdline []byte, dir string) bool {
	for _, arg := range strings.Split(string(cmdline), "\x00") {
		if _, v, ok := strings.Cut(arg, "="); ok {
			arg = v
		}
		if below(arg, dir) {
			return true
		}
	}
	return false
}

func below(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

func mounts(names instance.Names, dataDir string) ([]string, error) {
	list, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		return !below(m.Mountpoint, names.RuntimeDir) && !below(m.Mountpoint, dataDir), false
	})
	var left []string
	for _, m := range list {
		left = append(left, fmt.Sprintf("mount of %s at %s", m.FSType, m.Mountpoint))
	}
	return left, err
}

func interfaces(names instance.Names, _ string) ([]string, error) {
	links, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, err
	}
	var left []string
	for _, l := range links {
		name := l.Attrs().Name
		if name == names.Bridge || strings.HasPrefix(name, network.VethPrefix(names.Bridge)) {
			left = append(left, fmt.Sprintf("network interface %s (%s)", name, l.Type()))
		}
	}
	return left, nil
}

func tables(names instance.Names, _ string) ([]string, error) {
	list, err := (&nftables.Conn{}).ListTables()
	var left []string
	for _, t := range list {
		if t.Name == names.NFTable {
			left = append(left, "nftables table "+t.Name)
		}
	}
	if errors.Is(err, fs.ErrPermission) {
		return left, nil // without root there can be none of ours
	}
	return left, err
}

// rules are those in chains that aren't the instance's own.
func rules(names instance.Names, _ string) ([]string, error) {
	left, err := network.AcceptRules(names.NFTable)
	if errors.Is(err, fs.ErrPermission) {
		return left, nil // without root there can be none of ours
	}
	return left, err
}

func cgroups(names instance.Names, _ string) ([]string, error) {
	const root = "/sys/fs/cgroup"
	var left []string
	for _, hierarchy := range []string{root, root + "/*"} {
		dirs, err := filepath.Glob(hierarchy + names.CgroupParent)
		if err != nil {
			return nil, err
		}
		for _, d := range dirs {
			left = append(left, "cgroup "+d)
		}
	}
	return left, nil
}

func files(names instance.Names, _ string) ([]string, error) {
	var left []string
	err := filepath.WalkDir(names.RuntimeDir, func(path string, _ fs.DirEntry, err error) error {
		if err == nil {
			left = append(left, "file "+path)
		}
		return nil
	})
	return left, err
}
