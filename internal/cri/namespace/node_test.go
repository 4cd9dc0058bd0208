//go:build node

package namespace

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"errand.dev/errand/internal/cri/idmap"
)

func openDir(t *testing.T) *Dir {
	t.Helper()
	d, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func remove(t *testing.T, d *Dir, id string) {
	t.Helper()
	if err := d.Remove(id); err != nil {
		t.Error(err)
	}
}

// threadsIn counts this process's threads in a namespace other than the first
// thread's.
func threadsElsewhere(t *testing.T) int {
	t.Helper()
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	links, err := filepath.Glob("/proc/self/task/*/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, l := range links {
		if ns, err := os.Readlink(l); err == nil && ns != own {
			n++
		}
	}
	return n
}

func TestNamespacesArePinned(t *testing.T) {
	d := openDir(t)
	var inside, hostname, sysctl string
	err := d.Create("s1", Spec{
		Kinds: []Kind{Net, IPC, UTS}, Hostname: "pod", Sysctls: map[string]string{"net.ipv4.ip_forward": "1", "net.ipv4.conf.lo.forwarding": "1"},
		Inside: func() (err error) {
			inside, err = os.Readlink("/proc/thread-self/ns/net")
			b, rerr := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
			var u unix.Utsname
			uerr := unix.Uname(&u)
			sysctl, hostname = strings.TrimSpace(string(b)), unix.ByteSliceToString(u.Nodename[:])
			return errors.Join(err, rerr, uerr)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { remove(t, d, "s1") })
	if hostname != "pod" || sysctl != "1" {
		t.Errorf("hostname %q, sysctl %q", hostname, sysctl)
	}
	for _, k := range []Kind{Net, IPC, UTS} {
		if !d.Pinned("s1", k) {
			t.Errorf("%s isn't pinned", k)
		}
	}
	if d.Pinned("s1", PID) {
		t.Error("a PID namespace is pinned")
	}
	err = d.Run("s1", func() error {
		got, err := os.Readlink("/proc/thread-self/ns/net")
		if err == nil && got != inside {
			err = fmt.Errorf("in %s, want %s", got, inside)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if ids, err := d.List(); err != nil || !slices.Equal(ids, []string{"s1"}) {
		t.Errorf("list %v, %v", ids, err)
	}
	for range 2 {
		remove(t, d, "s1")
	}
	if ids, _ := d.List(); len(ids) != 0 {
		t.Errorf("left %v", ids)
	}
}

// The namespaces that come with a user namespace belong to it.
func TestUserNamespace(t *testing.T) {
	d := openDir(t)
	ids := idmap.Range{Host: 7 << 16, Length: 1 << 16}
	var hostname, sysctl string
	err := d.Create("u1", Spec{
		Kinds: []Kind{Net, IPC, UTS}, Users: &idmap.Mapping{Users: ids, Groups: ids}, Hostname: "pod",
		Sysctls: map[string]string{"net.ipv4.ip_unprivileged_port_start": "80"},
		Inside: func() error {
			b, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
			var u unix.Utsname
			uerr := unix.Uname(&u)
			sysctl, hostname = strings.TrimSpace(string(b)), unix.ByteSliceToString(u.Nodename[:])
			return errors.Join(err, uerr)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { remove(t, d, "u1") })
	if hostname != "pod" || sysctl != "80" {
		t.Errorf("hostname %q, sysctl %q", hostname, sysctl)
	}
	users := inode(t, d.Path("u1", User))
	for _, k := range []Kind{Net, IPC, UTS} {
		ns, err := os.Open(d.Path("u1", k))
		if err != nil {
			t.Fatal(err)
		}
		owner, err := unix.IoctlRetInt(int(ns.Fd()), unix.NS_GET_USERNS)
		if err != nil {
			t.Fatal(err)
		}
		if got := inode(t, fmt.Sprintf("/proc/self/fd/%d", owner)); got != users {
			t.Errorf("the %s namespace belongs to the user namespace %d, want %d", k, got, users)
		}
		if err := errors.Join(unix.Close(owner), ns.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if own := inode(t, "/proc/self/ns/user"); users == own {
		t.Error("the user namespace is the host's")
	}
	if err := d.Create("u2", Spec{Kinds: []Kind{Net}, Users: &idmap.Mapping{Users: ids, Groups: ids}, Inside: func() error { return errors.New("no") }}); err == nil || d.Pinned("u2", User) {
		t.Errorf("a failure left its user namespace, or was none: %v", err)
	}
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

func TestProbeUsers(t *testing.T) {
	d := openDir(t)
	if err := d.ProbeUsers("/dev/shm", "/run"); err != nil {
		t.Errorf("this machine: %v", err)
	}
	if err := d.ProbeUsers("/proc", "/run"); err == nil || !strings.Contains(err.Error(), "on proc") {
		t.Errorf("a file system that can't map owners: %v", err)
	}
	closed := filepath.Join(t.TempDir(), "closed")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := d.ProbeUsers("/dev/shm", closed); err == nil || !strings.Contains(err.Error(), "chmod o+x") {
		t.Errorf("bundles out of reach: %v", err)
	}
}

// Whichever thread a sandbox's namespaces were made on, none stays there: it
// would keep them, and the pod's interface, for as long as the process lives.
func TestNoThreadStaysInside(t *testing.T) {
	d := openDir(t)
	for i := range 50 {
		id := fmt.Sprint(i)
		if err := d.Create(id, Spec{Kinds: []Kind{Net}}); err != nil {
			t.Fatal(err)
		}
		if err := d.Run(id, func() error { return nil }); err != nil {
			t.Fatal(err)
		}
		remove(t, d, id)
	}
	// A thread ends shortly after its goroutine has.
	for i := 0; threadsElsewhere(t) > 0; i++ {
		if i == 1000 {
			t.Fatalf("%d threads are left in sandboxes", threadsElsewhere(t))
		}
		unix.Nanosleep(&unix.Timespec{Nsec: 1e6}, nil) //nolint:errcheck // a bounded wait for the kernel
	}
}

func TestFailureLeavesNothing(t *testing.T) {
	d := openDir(t)
	for name, spec := range map[string]Spec{
		"inside":  {Kinds: []Kind{Net}, Inside: func() error { return errors.New("no") }},
		"sysctl":  {Kinds: []Kind{Net}, Sysctls: map[string]string{"net.no.such": "1"}},
		"escape":  {Kinds: []Kind{Net}, Sysctls: map[string]string{"net/../kernel/panic": "1", "../x": "1"}},
		"process": {Kinds: []Kind{PID}},
	} {
		if err := d.Create("bad", spec); err == nil {
			t.Errorf("%s: no error", name)
		}
		if ids, err := d.List(); err != nil || len(ids) != 0 {
			t.Errorf("%s: left %v, %v", name, ids, err)
		}
	}
}

// A crash between a pin's file and its mount leaves a bare file.
func TestBareFileIsNoPin(t *testing.T) {
	d := openDir(t)
	if err := os.WriteFile(d.Path("half", Net), nil, 0o400); err != nil {
		t.Fatal(err)
	}
	if d.Pinned("half", Net) {
		t.Error("a bare file counts as a namespace")
	}
	if ids, _ := d.List(); !slices.Equal(ids, []string{"half"}) {
		t.Errorf("list %v", ids)
	}
	remove(t, d, "half")
	if ids, _ := d.List(); len(ids) != 0 {
		t.Errorf("left %v", ids)
	}
}

func TestPinProcess(t *testing.T) {
	d := openDir(t)
	if err := d.PinProcess("s1", PID, os.Getpid()); err != nil {
		t.Fatal(err)
	}
	if !d.Pinned("s1", PID) {
		t.Error("not pinned")
	}
	remove(t, d, "s1")
}
