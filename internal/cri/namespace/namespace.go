// Package namespace makes the Linux namespaces that a sandbox's containers
// share and keeps them alive without a process: each is pinned by a bind mount
// of its file below the runtime directory.
//
// A pin's path is a function of the sandbox's ID and the namespace's kind, so
// that after a crash what exists can be read off the directory. The package
// doesn't fill a namespace with anything but hostname and sysctls; the network
// inside is package network's.
package namespace

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/pkg/sys"
	"golang.org/x/sys/unix"

	"errand.dev/errand/internal/cri/idmap"
)

// Kind is a kind of namespace that can be pinned.
type Kind string

// The kinds, named like their files in /proc/<pid>/ns.
const (
	Net Kind = "net"
	IPC Kind = "ipc"
	UTS Kind = "uts"
	PID Kind = "pid"
	// User namespaces own the others that are made with them.
	User Kind = "user"
)

var kinds = [...]Kind{Net, IPC, UTS, PID, User}

func (k Kind) flag() int {
	switch k {
	case Net:
		return unix.CLONE_NEWNET
	case IPC:
		return unix.CLONE_NEWIPC
	case UTS:
		return unix.CLONE_NEWUTS
	}
	return 0
}

// Spec says what a sandbox's namespaces are to be.
type Spec struct {
	// Kinds to make. PID can't be made here: it needs a process (PinProcess).
	Kinds []Kind
	// Users are the IDs of a new user namespace, to which the others then
	// belong; nil leaves the host's.
	Users *idmap.Mapping
	// Hostname of a new UTS namespace; "" leaves the host's.
	Hostname string
	// Sysctls by name ("net.ipv4.ip_forward"), set inside of the namespaces.
	Sysctls map[string]string
	// Inside runs on the thread that is in the new namespaces, to open what
	// must be opened there. It must not start goroutines for that.
	Inside func() error
}

// Dir is the directory of pins. It is safe for concurrent use as long as no
// two callers work on one ID.
type Dir struct {
	root string
}

// Open makes the directory where it is missing.
func Open(root string) (*Dir, error) {
	for _, k := range kinds {
		if err := os.MkdirAll(filepath.Join(root, string(k)+"ns"), 0o700); err != nil {
			return nil, fmt.Errorf("make the directory of pinned namespaces: %w", err)
		}
	}
	return &Dir{root: root}, nil
}

// Path is where the sandbox's namespace of that kind is pinned, pinned or not.
func (d *Dir) Path(id string, k Kind) string {
	return filepath.Join(d.root, string(k)+"ns", id)
}

// Create makes the namespaces and pins them. On failure nothing is left.
func (d *Dir) Create(id string, spec Spec) error {
	create := d.createHere
	if spec.Users != nil {
		create = d.createMapped
	}
	if err := create(id, spec); err != nil {
		return errors.Join(fmt.Errorf("make the namespaces of sandbox %s: %w", id, err), d.Remove(id))
	}
	return nil
}

func (d *Dir) createHere(id string, spec Spec) error {
	flags, err := spec.flags()
	if err != nil {
		return err
	}
	return OnThread(func() error {
		if err := unix.Unshare(flags); err != nil {
			return fmt.Errorf("unshare %v: %w", spec.Kinds, err)
		}
		return d.fill(id, spec)
	})
}

// createMapped has a process make the namespaces: no thread of a process with
// others can enter a user namespace, and only in it are made those that belong to
// it. The process executes nothing and is gone when this returns.
func (d *Dir) createMapped(id string, spec Spec) error {
	flags, err := spec.flags()
	if err != nil {
		return err
	}
	return sys.UnshareAfterEnterUserns(spec.Users.Users.String(), spec.Users.Groups.String(), uintptr(flags), func(pid int) error {
		if err := pin(fmt.Sprintf("/proc/%d/ns/%s", pid, User), d.Path(id, User)); err != nil {
			return err
		}
		return OnThread(func() error {
			for _, k := range spec.Kinds {
				if err := enter(fmt.Sprintf("/proc/%d/ns/%s", pid, k), k); err != nil {
					return err
				}
			}
			return d.fill(id, spec)
		})
	})
}

// enter moves the calling thread into a namespace.
func enter(path string, k Kind) error {
	ns, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open the new %s namespace: %w", k, err)
	}
	defer ns.Close() //nolint:errcheck // opened for reading
	if err := unix.Setns(int(ns.Fd()), k.flag()); err != nil {
		return fmt.Errorf("enter the new %s namespace: %w", k, err)
	}
	return nil
}

func (s Spec) flags() (int, error) {
	flags := 0
	for _, k := range s.Kinds {
		if k.flag() == 0 {
			return 0, fmt.Errorf("a %s namespace can't be made without a process", k)
		}
		flags |= k.flag()
	}
	return flags, nil
}

// fill sets up and pins the new namespaces, which the calling thread is in.
func (d *Dir) fill(id string, spec Spec) error {
	if slices.Contains(spec.Kinds, UTS) && spec.Hostname != "" {
		if err := unix.Sethostname([]byte(spec.Hostname)); err != nil {
			return fmt.Errorf("set the hostname %q: %w", spec.Hostname, err)
		}
	}
	for name, value := range spec.Sysctls {
		if err := setSysctl(name, value); err != nil {
			return err
		}
	}
	for _, k := range spec.Kinds {
		if err := pin("/proc/thread-self/ns/"+string(k), d.Path(id, k)); err != nil {
			return err
		}
	}
	if spec.Inside == nil {
		return nil
	}
	return spec.Inside()
}

// PinProcess pins the namespace of that kind that a process lives in.
func (d *Dir) PinProcess(id string, k Kind, pid int) error {
	return pin(fmt.Sprintf("/proc/%d/ns/%s", pid, k), d.Path(id, k))
}

func pin(ns, path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE|os.O_EXCL, 0o400)
	if err != nil {
		return fmt.Errorf("make the pin: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("make the pin: %w", err)
	}
	if err := unix.Mount(ns, path, "", unix.MS_BIND, ""); err != nil {
		return errors.Join(fmt.Errorf("pin the namespace %s at %s: %w", ns, path, err), os.Remove(path))
	}
	return nil
}

// setSysctl writes a sysctl of the calling thread's namespaces.
func setSysctl(name, value string) error {
	path, err := sysctlPath(name)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		return fmt.Errorf("set the sysctl %s to %q: %w", name, value, err)
	}
	return nil
}

// sysctlPath is the file of a sysctl. A dot in an interface's name is written
// as a slash, as sysctl(8) has it; so it is the path, not the name, that must
// not lead to another, "net.//.kernel.core_pattern" say.
func sysctlPath(name string) (string, error) {
	path := strings.NewReplacer(".", "/", "/", ".").Replace(name)
	if path == "." || filepath.Clean(path) != path || !filepath.IsLocal(path) {
		return "", fmt.Errorf("sysctl %q is no valid name", name)
	}
	return filepath.Join("/proc/sys", path), nil
}

// Pinned says whether the sandbox's namespace of that kind is there. A bare
// file, such as a crash between its creation and the mount leaves, is none.
func (d *Dir) Pinned(id string, k Kind) bool {
	var st unix.Statfs_t
	return unix.Statfs(d.Path(id, k), &st) == nil && st.Type == unix.NSFS_MAGIC
}

// Remove lets go of all of the sandbox's namespaces; each ends with its last
// process. It is idempotent.
func (d *Dir) Remove(id string) error {
	var errs []error
	for _, k := range kinds {
		errs = append(errs, unpin(d.Path(id, k)))
	}
	return errors.Join(errs...)
}

func unpin(path string) error {
	err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil && !errors.Is(err, unix.EINVAL) { // EINVAL: nothing is mounted there
		return fmt.Errorf("let go of the namespace at %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("let go of a namespace: %w", err)
	}
	return nil
}

// List returns the IDs of which any pin, or the bare file of one, is there.
func (d *Dir) List() ([]string, error) {
	seen := map[string]bool{}
	var ids []string
	for _, k := range kinds {
		entries, err := os.ReadDir(filepath.Join(d.root, string(k)+"ns"))
		if err != nil {
			return nil, fmt.Errorf("list the pinned namespaces: %w", err)
		}
		for _, e := range entries {
			if !seen[e.Name()] {
				seen[e.Name()] = true
				ids = append(ids, e.Name())
			}
		}
	}
	return ids, nil
}

// Run calls f on a thread that is inside of the sandbox's network namespace.
// What f opens there, a socket say, stays of that namespace; f must not start
// goroutines.
func (d *Dir) Run(id string, f func() error) error {
	ns, err := os.Open(d.Path(id, Net))
	if err != nil {
		return fmt.Errorf("open the network namespace of sandbox %s: %w", id, err)
	}
	defer ns.Close()
	return OnThread(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter the network namespace of sandbox %s: %w", id, err)
		}
		return f()
	})
}

// OnThread runs f on a thread of its own, which is never unlocked: it ends with
// its goroutine, and no other goroutine ever runs in the namespaces that it
// has entered.
func OnThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			done <- f()
			return
		}
		// The process's first thread never ends; Go parks it, and with it the
		// sandbox's namespaces would live on. While it is held here, the next
		// goroutine gets another.
		err := OnThread(f)
		runtime.UnlockOSThread()
		done <- err
	}()
	return <-done
}
