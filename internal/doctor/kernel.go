package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"errand.dev/errand/internal/instance"
)

// oldestKernel is the first with everything errand uses unconditionally:
// clone3, pidfd and overlayfs' volatile came by 5.10.
var oldestKernel = [2]int{5, 10}

func privileges(context.Context, Host) Finding {
	if os.Geteuid() == 0 {
		return ok("root")
	}
	return fail("run it as root; without, errand serve --node=false serves the API and the Job engine alone",
		"user %d may not make namespaces, mounts, cgroups and networks", os.Geteuid())
}

func kernel(_ context.Context, h Host) Finding {
	b, err := os.ReadFile(filepath.Join(h.Root, "/proc/sys/kernel/osrelease"))
	if err != nil {
		return fail("mount /proc", "can't tell the kernel's version: %v", err)
	}
	release := strings.TrimSpace(string(b))
	major, minor, err := kernelVersion(release)
	if err != nil {
		return warn("make sure that it is at least 5.10", "%v", err)
	}
	if major < oldestKernel[0] || (major == oldestKernel[0] && minor < oldestKernel[1]) {
		return fail("upgrade it", "Linux %s is older than %d.%d", release, oldestKernel[0], oldestKernel[1])
	}
	return ok("Linux %s", release)
}

func kernelVersion(release string) (major, minor int, err error) {
	parts := strings.SplitN(release, ".", 3)
	if len(parts) < 2 {
		return 0, 0, fmt.Errorf("kernel release %q has no version", release)
	}
	digits := strings.IndexFunc(parts[1], func(r rune) bool { return r < '0' || r > '9' })
	if digits < 0 {
		digits = len(parts[1])
	}
	if major, err = strconv.Atoi(parts[0]); err == nil {
		minor, err = strconv.Atoi(parts[1][:digits])
	}
	if err != nil {
		return 0, 0, fmt.Errorf("kernel release %q has no version", release)
	}
	return major, minor, nil
}

// The controllers without which limits and accounting don't work.
var neededControllers = []string{"cpu", "memory", "pids"}

func cgroups(_ context.Context, h Host) Finding {
	root := filepath.Join(h.Root, "/sys/fs/cgroup")
	b, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	if err == nil {
		f := controllersFinding("v2", strings.Fields(string(b)))
		return writableFinding(f, h, []string{root})
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fail("mount a cgroup2 filesystem at /sys/fs/cgroup", "can't read the cgroups: %v", err)
	}
	entries, err := os.ReadDir(root)
	if err != nil || len(entries) == 0 {
		return fail("mount a cgroup2 filesystem at /sys/fs/cgroup", "no cgroup filesystem is mounted")
	}
	var have, hierarchies []string
	for _, e := range entries {
		controllers := strings.Split(e.Name(), ",")
		have = append(have, controllers...)
		if slices.ContainsFunc(controllers, func(c string) bool { return slices.Contains(neededControllers, c) }) {
			hierarchies = append(hierarchies, filepath.Join(root, e.Name()))
		}
	}
	f := controllersFinding("v1", have)
	if f.Status == OK {
		f = warn("boot with systemd.unified_cgroup_hierarchy=1 for version 2", "%s: works, but is slower and on its way out", f.Detail)
	}
	return writableFinding(f, h, hierarchies)
}

// writableFinding makes a cgroup of errand's name in each hierarchy and removes
// it: in a container the cgroups are often there, but may not be changed.
func writableFinding(f Finding, h Host, hierarchies []string) Finding {
	if f.Status == Failure || os.Geteuid() != 0 {
		return f
	}
	names, err := instance.For(h.DataDir)
	if err != nil {
		return fail("name another --data-dir", "%v", err)
	}
	for _, dir := range hierarchies {
		if err := tryCgroup(filepath.Join(dir, names.CgroupParent)); err != nil {
			return fail("mount /sys/fs/cgroup read-write; in a container, run it privileged or with its cgroups delegated",
				"can't make a cgroup: %v", err)
		}
	}
	return f
}

// tryCgroup makes and removes a cgroup: path, or one in it where an errand has
// made path already.
func tryCgroup(path string) error {
	err := os.Mkdir(path, 0o755)
	if errors.Is(err, fs.ErrExist) {
		path = filepath.Join(path, fmt.Sprintf("doctor-%d", os.Getpid()))
		err = os.Mkdir(path, 0o755)
	}
	if err != nil {
		return err
	}
	return unix.Rmdir(path)
}

func controllersFinding(version string, have []string) Finding {
	var missing []string
	for _, c := range neededControllers {
		if !slices.Contains(have, c) {
			missing = append(missing, c)
		}
	}
	if len(missing) > 0 {
		return fail("enable them on the kernel's command line (cgroup_enable=…), or have whoever runs this container delegate them",
			"%s without the controllers %s", version, strings.Join(missing, ", "))
	}
	return ok("%s with %s", version, strings.Join(neededControllers, ", "))
}

func namespaces(_ context.Context, h Host) Finding {
	var missing []string
	for _, ns := range []string{"cgroup", "ipc", "mnt", "net", "pid", "uts"} {
		if _, err := os.Lstat(filepath.Join(h.Root, "/proc/self/ns", ns)); err != nil {
			missing = append(missing, ns)
		}
	}
	if len(missing) > 0 {
		return fail("use a kernel built with CONFIG_NAMESPACES and its options", "the kernel lacks namespaces: %s", strings.Join(missing, ", "))
	}
	return ok("cgroup, ipc, mnt, net, pid, uts")
}

func overlay(_ context.Context, h Host) Finding {
	const remedy = "load the module (modprobe overlay) and keep the data directory on a filesystem that overlayfs accepts above it, such as ext4 or xfs with ftype=1"
	if os.Geteuid() != 0 {
		return warn("run errand doctor as root", "can't try a mount without root")
	}
	parent := h.DataDir
	if _, err := os.Stat(parent); err != nil {
		parent = existingParent(parent)
	}
	dir, err := os.MkdirTemp(parent, ".errand-doctor-")
	if err != nil {
		return fail("name a writable --data-dir", "can't write below %s: %v", parent, err)
	}
	defer os.RemoveAll(dir)
	var paths []string
	for _, sub := range []string{"lower", "upper", "work", "merged"} {
		p := filepath.Join(dir, sub)
		if err := os.Mkdir(p, 0o700); err != nil {
			return fail("name a writable --data-dir", "%v", err)
		}
		paths = append(paths, p)
	}
	data := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", paths[0], paths[1], paths[2])
	if err := unix.Mount("overlay", paths[3], "overlay", 0, data+",volatile"); err == nil {
		defer unix.Unmount(paths[3], unix.MNT_DETACH)
		return ok("works below %s, with volatile", parent)
	}
	if err := unix.Mount("overlay", paths[3], "overlay", 0, data); err != nil {
		return fail(remedy, "can't mount an overlay below %s: %v", parent, err)
	}
	defer unix.Unmount(paths[3], unix.MNT_DETACH)
	return warn("use Linux 5.10 or newer", "works below %s, but not with volatile: a container's end may wait for the disk", parent)
}

func existingParent(path string) string {
	for {
		parent := filepath.Dir(path)
		if _, err := os.Stat(parent); err == nil || parent == path {
			return parent
		}
		path = parent
	}
}

func seccomp(_ context.Context, h Host) Finding {
	b, err := os.ReadFile(filepath.Join(h.Root, "/proc/sys/kernel/seccomp/actions_avail"))
	if err != nil {
		return fail("use a kernel built with CONFIG_SECCOMP_FILTER", "the kernel has no seccomp filters")
	}
	return ok("%s", strings.TrimSpace(string(b)))
}

func nftablesWork(context.Context, Host) Finding {
	if os.Geteuid() != 0 {
		return warn("run errand doctor as root", "can't ask without root")
	}
	conn, err := nftables.New()
	if err == nil {
		_, err = conn.ListTables()
	}
	if err != nil {
		return fail("load the module (modprobe nf_tables)", "the kernel doesn't answer: %v", err)
	}
	return ok("the kernel answers")
}

func forwarding(_ context.Context, h Host) Finding {
	b, err := os.ReadFile(filepath.Join(h.Root, "/proc/sys/net/ipv4/ip_forward"))
	if err != nil {
		return fail("use a kernel with IPv4", "can't read ip_forward: %v", err)
	}
	if strings.TrimSpace(string(b)) != "1" {
		return ok("off now; errand serve turns net.ipv4.ip_forward on for the pods")
	}
	return ok("net.ipv4.ip_forward is on")
}
