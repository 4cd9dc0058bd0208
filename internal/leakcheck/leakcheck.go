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
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/moby/sys/mountinfo"
	"github.com/vishvananda/netlink"

	"errand.dev/errand/internal/cri/network"
	"errand.dev/errand/internal/instance"
	"errand.dev/errand/internal/slowness"
)

// grace is how long the kernel may take over what it ends in the background: a
// veth goes some time after its network namespace, a process some time after
// SIGKILL.
var grace = slowness.Times(5 * time.Second)

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
		for _, l := range patiently(grace, func() []string { return find(t, names, dataDir) }) {
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

// Stock takes stock of an instance that runs, with all that its data directory
// holds. The function that it returns makes the test fail if by then there is
// more: what pods that have gone left behind. Both must be called while no pod
// comes or goes; the directories of every pod's parts are there only once the
// first pod has been.
func Stock(t testing.TB, dataDir string) (check func()) {
	t.Helper()
	return stock(t, dataDir, grace)
}

func stock(t testing.TB, dataDir string, patience time.Duration) (check func()) {
	t.Helper()
	names, err := instance.For(dataDir)
	if err != nil {
		t.Fatal(err)
	}
	before := inventory(t, names, dataDir)
	return func() {
		t.Helper()
		for _, l := range patiently(patience, func() []string { return more(before, inventory(t, names, dataDir)) }) {
			t.Errorf("left behind: %s", l)
		}
	}
}

// patiently looks again for a while if something is left. The kernel tells
// nobody when it's done.
func patiently(patience time.Duration, look func() []string) []string {
	deadline := time.Now().Add(patience)
	left := look()
	for delay := time.Millisecond; len(left) > 0 && time.Now().Before(deadline); delay *= 2 {
		time.Sleep(delay)
		left = look()
	}
	return left
}

// more returns what after has that before hasn't, as often as it has it more.
func more(before, after []string) []string {
	had := map[string]int{}
	for _, s := range before {
		had[s]++
	}
	return slices.DeleteFunc(after, func(s string) bool {
		had[s]--
		return had[s] >= 0
	})
}

func inventory(t testing.TB, names instance.Names, dataDir string) []string {
	t.Helper()
	list, err := Inventory(names, dataDir)
	if err != nil {
		t.Errorf("take stock: %v", err)
	}
	return list
}

// Inventory returns what Find does, and more: each cgroup below the instance's,
// each rule of its firewall, and each file in its data directory, except for
// what the store and the images' content consist of. Processes come without
// their ids.
func Inventory(names instance.Names, dataDir string) ([]string, error) {
	var stock []string
	var errs []error
	for _, look := range []func(instance.Names, string) ([]string, error){commands, mounts, interfaces, tables, firewall, allCgroups, files, dataFiles} {
		found, err := look(names, dataDir)
		stock, errs = append(stock, found...), append(errs, err)
	}
	return stock, errors.Join(errs...)
}

// Settled is for programs that aren't tests: the Inventory once it has nothing
// more than before, or else what it is when the kernel has had its time.
func Settled(names instance.Names, dataDir string, before []string) (list []string, err error) {
	patiently(grace, func() []string {
		list, err = Inventory(names, dataDir)
		return more(before, slices.Clone(list))
	})
	return list, err
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

// Left is for programs that aren't tests: what Find still finds once the kernel
// has had its time. The instance must have ended.
func Left(names instance.Names, dataDir string) ([]string, error) {
	var err error
	left := patiently(grace, func() (left []string) {
		left, err = Find(names, dataDir)
		return left
	})
	return left, err
}

// process is one of an instance's.
type process struct {
	pid     int
	command string
}

// processesOf are those in the instance's cgroups, and those that name one of
// its directories in their command line.
func processesOf(names instance.Names, dataDir string) ([]process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var list []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		cmdline := readProc(pid, "cmdline")
		if inCgroup(readProc(pid, "cgroup"), names.CgroupParent) || mentions(cmdline, names.RuntimeDir) || mentions(cmdline, dataDir) {
			list = append(list, process{pid, string(bytes.ReplaceAll(cmdline, []byte{0}, []byte{' '}))})
		}
	}
	return list, nil
}

func processes(names instance.Names, dataDir string) ([]string, error) {
	list, err := processesOf(names, dataDir)
	var left []string
	for _, p := range list {
		left = append(left, fmt.Sprintf("process %d: %s", p.pid, p.command))
	}
	return left, err
}

func commands(names instance.Names, dataDir string) ([]string, error) {
	list, err := processesOf(names, dataDir)
	var stock []string
	for _, p := range list {
		stock = append(stock, "process: "+p.command)
	}
	return stock, err
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

// firewall are the rules and the sets' elements in the instance's table.
func firewall(names instance.Names, _ string) ([]string, error) {
	conn := &nftables.Conn{}
	chains, err := conn.ListChains()
	if err != nil {
		return nil, err
	}
	var stock []string
	var errs []error
	for _, chain := range chains {
		if chain.Table.Name != names.NFTable {
			continue
		}
		rules, err := conn.GetRules(chain.Table, chain)
		errs = append(errs, err)
		for _, r := range rules {
			stock = append(stock, fmt.Sprintf("nftables rule %d in chain %s", r.Handle, chain.Name))
		}
	}
	found, err := conn.ListTables()
	errs = append(errs, err)
	for _, table := range found {
		if table.Name != names.NFTable {
			continue
		}
		elements, err := setElements(conn, table)
		stock, errs = append(stock, elements...), append(errs, err)
	}
	return stock, errors.Join(errs...)
}

func setElements(conn *nftables.Conn, table *nftables.Table) ([]string, error) {
	sets, err := conn.GetSets(table)
	if err != nil {
		return nil, err
	}
	var found []string
	var errs []error
	for _, set := range sets {
		elements, err := conn.GetSetElements(set)
		errs = append(errs, err)
		for _, e := range elements {
			found = append(found, fmt.Sprintf("nftables element %x in set %s", e.Key, set.Name))
		}
	}
	return found, errors.Join(errs...)
}

// cgroupRoots are the instance's cgroup in each hierarchy that has it.
func cgroupRoots(names instance.Names) ([]string, error) {
	const root = "/sys/fs/cgroup"
	v2, err := filepath.Glob(root + names.CgroupParent)
	if err != nil {
		return nil, err
	}
	v1, err := filepath.Glob(root + "/*" + names.CgroupParent)
	return append(v2, v1...), err
}

func cgroups(names instance.Names, _ string) ([]string, error) {
	roots, err := cgroupRoots(names)
	return each("cgroup", roots), err
}

func allCgroups(names instance.Names, _ string) ([]string, error) {
	roots, err := cgroupRoots(names)
	var stock []string
	for _, root := range roots {
		stock = append(stock, each("cgroup", walk(root, fs.DirEntry.IsDir))...)
	}
	return stock, err
}

func files(names instance.Names, _ string) ([]string, error) {
	return each("file", walk(names.RuntimeDir, anything)), nil
}

// dataFiles leaves out what changes without pods (the database's files, and what was
// pulled once and stays), and logs that are kept on purpose.
func dataFiles(_ instance.Names, dataDir string) ([]string, error) {
	kept := []string{"etcd", "images/content", "images/snapshots"}
	return each("file", slices.DeleteFunc(walk(dataDir, anything), func(path string) bool {
		return slices.ContainsFunc(kept, func(part string) bool { return below(path, filepath.Join(dataDir, part)) }) ||
			below(path, filepath.Join(dataDir, "logs", "kept")) && hasRecord(path)
	})), nil
}

// hasRecord tells whether a file below logs/kept is of a log that is kept: then its
// record is beside it. When a Job went is noted for as long as a log of its is.
func hasRecord(path string) bool {
	run, _, ok := strings.Cut(filepath.Base(path), ".log")
	if !ok {
		return slices.Contains([]string{".json", ".gone"}, filepath.Ext(path))
	}
	_, err := os.Stat(filepath.Join(filepath.Dir(path), run+".json"))
	return err == nil
}

func anything(fs.DirEntry) bool { return true }

// walk lists what is in a directory, itself included, as far as it is wanted.
// What goes meanwhile isn't there.
func walk(dir string, wanted func(fs.DirEntry) bool) []string {
	var paths []string
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && wanted(d) {
			paths = append(paths, path)
		}
		return nil
	})
	return paths
}

func each(what string, paths []string) []string {
	var words []string
	for _, p := range paths {
		words = append(words, what+" "+p)
	}
	return words
}
