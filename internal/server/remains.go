package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/moby/sys/mountinfo"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"errand.dev/errand/internal/cri/cgroups"
	"errand.dev/errand/internal/cri/network"
	"errand.dev/errand/internal/instance"
	"errand.dev/errand/internal/oci/shimapi"
)

// killPatience is how long killed processes may take to go.
const killPatience = 30 * time.Second

// remains is what an errand left on its host. All of it is found by the names
// that follow from the data directory's path, so that it can be taken away
// where the directory itself, and with it all knowledge of sandboxes and
// containers, has been deleted.
type remains struct {
	names   instance.Names
	cgroups *cgroups.Tree

	shim       bool
	processes  []int
	mounts     []string // in the order of mounting
	interfaces []string
	table      bool
	runtimeDir bool
}

// findRemains looks for what an errand with that data directory has left.
func findRemains(ctx context.Context, dataDir string, names instance.Names) (*remains, error) {
	r := &remains{names: names, shim: answers(ctx, filepath.Join(names.RuntimeDir, shimapi.SocketName))}
	var err error
	if r.cgroups, err = cgroups.Open(cgroupRoot); err == nil { // without cgroups there never was a container
		if r.processes, err = r.cgroups.Processes(names.CgroupParent); err != nil {
			return nil, err
		}
	}
	if r.mounts, err = mountsOf(dataDir, names); err != nil {
		return nil, err
	}
	if r.interfaces, err = interfacesOf(names); err != nil {
		return nil, err
	}
	if r.table, err = hasTable(names); err != nil {
		return nil, err
	}
	_, err = os.Stat(names.RuntimeDir)
	r.runtimeDir = err == nil
	return r, nil
}

// found tells what there is, in words; nothing where there is nothing.
func (r *remains) found() []string {
	var words []string
	add := func(there bool, format string, args ...any) {
		if there {
			words = append(words, fmt.Sprintf(format, args...))
		}
	}
	add(r.shim, "errand-shim")
	add(len(r.processes) > 0, "%d processes in the cgroup %s", len(r.processes), r.names.CgroupParent)
	add(len(r.processes) == 0 && r.cgroups != nil && r.cgroups.Exists(r.names.CgroupParent), "the cgroup %s", r.names.CgroupParent)
	add(len(r.mounts) > 0, "%d mounts", len(r.mounts))
	add(len(r.interfaces) > 0, "the network interfaces %s", strings.Join(r.interfaces, ", "))
	add(r.table, "the nftables table %s", r.names.NFTable)
	add(r.runtimeDir, "%s", r.names.RuntimeDir)
	return words
}

// drainRemains ends what an errand left whose data directory is gone; missing
// is what to say where it left nothing.
func drainRemains(ctx context.Context, o Options, missing error, stderr io.Writer) error {
	names, err := instance.For(o.DataDir)
	if err != nil {
		return err
	}
	for _, socket := range []string{"control.sock", "etcd.sock"} {
		if answers(ctx, filepath.Join(names.RuntimeDir, socket)) {
			return fmt.Errorf("the data directory %s is gone, but its errand serve still runs (it answers in %s): stop it first", o.DataDir, names.RuntimeDir)
		}
	}
	path, err := realPath(o.DataDir)
	if err != nil {
		return err
	}
	r, err := findRemains(ctx, path, names)
	if err != nil {
		return err
	}
	found := r.found()
	if len(found) == 0 {
		return missing
	}
	fmt.Fprintf(stderr, "the data directory %s is gone; its errand left: %s\n", o.DataDir, strings.Join(found, "; "))
	if err := r.end(ctx, o); err != nil {
		return err
	}
	fmt.Fprintln(stderr, "all of that is gone now")
	return nil
}

// end takes it all away: first the processes, then what they held.
func (r *remains) end(ctx context.Context, o Options) error {
	if r.shim {
		// The shim may be in a cgroup of its starter's. Its containers are killed
		// here or, where it can't be spoken to, below.
		if err := r.drainShim(ctx, o); err != nil && len(r.processes) == 0 {
			return err
		}
	}
	if r.cgroups != nil {
		if err := errors.Join(r.killAll(), r.cgroups.Remove(r.names.CgroupParent)); err != nil {
			return err
		}
	}
	if err := unmount(r.mounts); err != nil {
		return err
	}
	if err := r.removeNetwork(); err != nil {
		return err
	}
	return removeRuntimeDir(r.names)
}

func (r *remains) drainShim(ctx context.Context, o Options) error {
	ctx, cancel := context.WithTimeout(ctx, killPatience)
	defer cancel()
	shim, err := openShim(ctx, FindPrograms(o), o.NativeLauncher, r.names)
	if err != nil {
		return err
	}
	return shim.Drain(ctx, true)
}

// killAll kills what is left in the cgroup and waits until it is gone: a cgroup
// with processes in it can't be removed, nor can their mounts.
func (r *remains) killAll() error {
	pids, err := r.cgroups.Processes(r.names.CgroupParent)
	if err != nil || len(pids) == 0 {
		return err
	}
	var fds []unix.PollFd
	defer func() {
		for _, fd := range fds {
			_ = unix.Close(int(fd.Fd)) // only polled
		}
	}()
	for _, pid := range pids {
		if fd, err := unix.PidfdOpen(pid, 0); err == nil { // else it has gone meanwhile
			fds = append(fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
		}
	}
	if err := r.cgroups.Kill(r.names.CgroupParent); err != nil {
		return err
	}
	deadline := time.Now().Add(killPatience)
	for i := range fds {
		for {
			n, err := unix.Poll(fds[i:i+1], max(0, int(time.Until(deadline).Milliseconds())))
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				return fmt.Errorf("wait for killed processes: %w", err)
			}
			if n == 0 {
				return fmt.Errorf("processes in the cgroup %s are still there %s after SIGKILL", r.names.CgroupParent, killPatience)
			}
			break
		}
	}
	return nil
}

// removeNetwork removes the veths, and then bridge and table.
func (r *remains) removeNetwork() error {
	if len(r.interfaces) == 0 && !r.table {
		return nil
	}
	for _, name := range r.interfaces {
		if name == r.names.Bridge {
			continue
		}
		link, err := netlink.LinkByName(name)
		if err == nil {
			err = netlink.LinkDel(link)
		}
		// The kernel removes them too, once their namespaces are unmounted.
		if err != nil && !errors.As(err, &netlink.LinkNotFoundError{}) && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("remove the network interface %s: %w", name, err)
		}
	}
	return network.Remove(r.names.Bridge, r.names.NFTable)
}

// realPath is the path as the kernel knows it, also of a directory that is gone.
func realPath(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("data directory %q: %w", path, err)
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		return real, nil
	}
	if parent, err := filepath.EvalSymlinks(filepath.Dir(abs)); err == nil {
		return filepath.Join(parent, filepath.Base(abs)), nil
	}
	return abs, nil
}

// answers says whether somebody listens on a unix socket.
func answers(ctx context.Context, path string) bool {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// mountsOf lists errand's mounts: those in the runtime directory, and those of
// pods in the data directory, which may be a mount of the user's itself.
func mountsOf(dataDir string, names instance.Names) ([]string, error) {
	list, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		at := strings.TrimSuffix(m.Mountpoint, "//deleted")
		for _, dir := range []string{names.RuntimeDir, filepath.Join(dataDir, "pods"), filepath.Join(dataDir, "cri")} {
			if strings.HasPrefix(at, dir+"/") {
				return false, false
			}
		}
		return true, false
	})
	if err != nil {
		return nil, fmt.Errorf("list the mounts: %w", err)
	}
	var paths []string
	for _, m := range list {
		paths = append(paths, m.Mountpoint)
	}
	return paths, nil
}

func interfacesOf(names instance.Names) ([]string, error) {
	links, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list the network interfaces: %w", err)
	}
	var found []string
	for _, l := range links {
		if name := l.Attrs().Name; name == names.Bridge || strings.HasPrefix(name, network.VethPrefix(names.Bridge)) {
			found = append(found, name)
		}
	}
	return found, nil
}

func hasTable(names instance.Names) (bool, error) {
	c, err := nftables.New()
	if err != nil {
		return false, fmt.Errorf("open nftables: %w", err)
	}
	tables, err := c.ListTables()
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EPROTONOSUPPORT) {
		return false, nil // nor could errand make one
	}
	if err != nil {
		return false, fmt.Errorf("list the nftables tables: %w", err)
	}
	return slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == names.NFTable }), nil
}
