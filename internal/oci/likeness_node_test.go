//go:build node

package oci_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"errand.dev/errand/internal/oci/ocitest"
)

// look is what a container sees of itself, and what it may do.
const look = `
b() { busybox "$@" 2>&1; }
b grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|Umask)' /proc/self/status
echo "oom $(b cat /proc/self/oom_score_adj)"
echo "cwd $(b pwd)"
b id; b env | b sort
b cat /proc/self/limits
b ls -ln /dev /dev/pts /proc/self/fd/0 | b sed 's/ [A-Z][a-z][a-z] .*:[0-9][0-9] / /'
for ns in mnt pid net ipc uts cgroup; do echo "$ns $(b readlink /proc/self/ns/$ns)"; done
b cat /proc/1/cgroup
for f in /proc/kcore /proc/keys /proc/timer_list /sys/firmware /proc/acpi /proc/scsi; do
  echo "$f: $(b ls -ld $f | b cut -c1) $(b head -c 5 $f | b wc -c) $(b ls $f | b wc -l)"
done
for f in /proc/sys/kernel/hostname /proc/sysrq-trigger /proc/irq/default_smp_affinity /sys/kernel/mm/ksm/run /etc/hosts /made /dev/made /dev/shm/made /tmp/made; do
  echo "write $f: $(b sh -c "echo x > $f" | b sed 's/^.*: //')"
done
echo "mount: $(b mount -t tmpfs x /tmp | b sed 's/^.*: //')"
echo "mknod: $(b mknod /tmp/n b 7 0 | b sed 's/^.*: //')  open: $(b head -c1 /tmp/n | b sed 's/^.*: //')"
echo "unshare: $(b unshare -m true | b sed 's/^.*: //')"
echo "chroot: $(b chroot / true | b sed 's/^.*: //')"
echo "kill: $(b kill -0 1)"
b cat /proc/self/mountinfo
b find / -xdev -maxdepth 3 -ls | b sed 's/^ *[0-9]* *[0-9]* //' | b sed 's/ [A-Z][a-z][a-z] .*:[0-9][0-9] / /'
`

// TestLauncherIsLikeRunc runs the same containers by errand's launcher and by runc, and compares what they see and may do.
func TestLauncherIsLikeRunc(t *testing.T) {
	for name, edits := range map[string][]func(*specs.Spec){
		"ordinary": nil,
		"readonly": {func(s *specs.Spec) { s.Root.Readonly = true }},
		"user":     {user(1000, 1001, 5, 6)},
		"restricted": {user(1000, 0), func(s *specs.Spec) {
			s.Process.NoNewPrivileges, s.Process.Capabilities = true, &specs.LinuxCapabilities{}
		}},
		"ambient":        {user(1000, 1000), ambient("CAP_NET_BIND_SERVICE")},
		"no filter":      {func(s *specs.Spec) { s.Linux.Seccomp = nil }},
		"nothing hidden": {nothingHidden},
		"cwd":            {func(s *specs.Spec) { s.Process.Cwd = "/made/by/the/runtime" }},
		"limits":         {limits},
		"binds":          {binds},
		"links":          {links},
		"cgroup view":    {cgroupView},
		"devices":        {devices},
		"own namespaces": {ownNamespaces},
		"bare image":     {bareImage},
		"closed cwd":     {user(1000, 1000), func(s *specs.Spec) { s.Process.Cwd = "/closed" }},
		"relative": {func(s *specs.Spec) {
			s.Process.Cwd, s.Process.Args = "/bin", append([]string{"./busybox"}, s.Process.Args...)
		}},
		"environment": {func(s *specs.Spec) { s.Process.Env = append(s.Process.Env, "X=again", "HOME=", "EMPTY=") }},
	} {
		t.Run(name, func(t *testing.T) {
			runc, native := see(t, false, edits), see(t, true, edits)
			if diff := cmp.Diff(runc, native); diff != "" {
				t.Errorf("by runc (-) and by errand (+):\n%s", diff)
			}
		})
	}
}

// see returns the lines of look in a container.
func see(t *testing.T, native bool, edits []func(*specs.Spec)) []string {
	t.Helper()
	h := ocitest.NewHost(t)
	f := &ocitest.Fixture{T: t, Host: h, Ctx: t.Context(), Runtime: connectBy(t, h, native)}
	for _, dir := range []string{h.Rootfs() + "/etc", h.Rootfs() + "/var", h.Rootfs() + "/run/real", h.Dir + "/shm"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(h.Rootfs()+"/closed", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(h.Dir+"/bare/bin", os.DirFS(h.Rootfs()+"/bin")); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{"var/run": "/run", "var/up": "../../../../run/real", "etc/mtab": "/proc/mounts", "etc/dangling": "../run/nowhere/file"} {
		if err := os.Symlink(target, filepath.Join(h.Rootfs(), link)); err != nil {
			t.Fatal(err)
		}
	}
	id := h.ID()
	all := append([]func(*specs.Spec){ordinary(h)}, edits...)
	all = append(all, func(s *specs.Spec) {
		if p := s.Linux.Seccomp; p != nil {
			s.Linux.Seccomp = seccomp.DefaultProfile(s)
		}
	})
	if _, err := f.TryStart(id, []string{"sh", "-c", look}, nil, all...); err != nil {
		t.Fatal(err)
	}
	exit := f.WaitExit(id)
	var lines []string
	for _, r := range f.Records(h.Log(id)) {
		lines = append(lines, normal(r.Content, h.Dir, id))
	}
	f.DeleteAll()
	// What hides something may do so by its own means: that it does is seen above.
	lines = slices.DeleteFunc(lines, func(l string) bool { return hiding.MatchString(l) })
	// The order of mounts, and of directory entries, says nothing.
	slices.Sort(lines)
	return append(lines, exit.Reason)
}

var (
	hiding      = regexp.MustCompile(`^/\S* (/proc/(acpi|interrupts|keys|timer_list|kcore)|/sys/firmware|/sys/fs/cgroup) r[ow],`)
	mountIDs    = regexp.MustCompile(`^\d+ \d+ \d+:\d+ `)
	peerGroups  = regexp.MustCompile(`(shared|master|propagate_from):\d+`)
	nsNumbers   = regexp.MustCompile(`:\[\d+\]`)
	pipeNumbers = regexp.MustCompile(`pipe:\[\d+\]`)
	inodeCounts = regexp.MustCompile(`(nr_inodes|size)=\w+`)
)

// normal leaves out what differs from one container to the next anyway.
func normal(line, dir, id string) string {
	line = strings.NewReplacer(dir, "DIR", filepath.Base(dir), "DIR", "/"+id, "/ID").Replace(line)
	line = mountIDs.ReplaceAllString(line, "")
	line = peerGroups.ReplaceAllString(line, "$1")
	line = pipeNumbers.ReplaceAllString(line, "pipe")
	line = inodeCounts.ReplaceAllString(line, "$1")
	// runc makes all of the sysfs read-only where it's the first to mount it, rather than this mount.
	line = strings.Replace(line, "sysfs sysfs ro", "sysfs sysfs rw", 1)
	return nsNumbers.ReplaceAllString(line, "")
}

// ordinary is what errand's CRI makes of an ordinary container.
func ordinary(h *ocitest.Host) func(*specs.Spec) {
	return func(s *specs.Spec) {
		s.Root.Readonly = false
		caps := []string{
			"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
			"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
		}
		s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
		s.Process.Env = []string{"PATH=/bin", "X=y z", "EMPTY="}
		s.Process.User.AdditionalGids = []uint32{0, 10}
		score := 500
		s.Process.OOMScoreAdj = &score
		s.Mounts = []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"}},
			{Destination: "/etc/hosts", Type: "bind", Source: "/etc/hosts", Options: []string{"rbind", "rprivate", "ro"}},
			{Destination: "/dev/shm", Type: "bind", Source: h.Dir + "/shm", Options: []string{"rbind", "rprivate", "rw"}},
		}
		s.Linux.MaskedPaths = []string{
			"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
			"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
		}
		s.Linux.ReadonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
		s.Linux.Resources = &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}}
		s.Linux.Seccomp = &specs.LinuxSeccomp{} // replaced by the default one once the rest is known
	}
}

func user(uid, gid uint32, groups ...uint32) func(*specs.Spec) {
	return func(s *specs.Spec) { s.Process.User = specs.User{UID: uid, GID: gid, AdditionalGids: groups} }
}

func ambient(caps ...string) func(*specs.Spec) {
	return func(s *specs.Spec) {
		s.Process.Capabilities.Ambient, s.Process.Capabilities.Inheritable = caps, caps
	}
}

func limits(s *specs.Spec) {
	umask := uint32(0o077)
	s.Process.User.Umask = &umask
	s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 100, Hard: 200}, {Type: "RLIMIT_CORE", Soft: 0, Hard: 0}}
	memory, shares, quota, period := int64(64<<20), uint64(128), int64(50_000), uint64(100_000)
	s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &memory}
	s.Linux.Resources.CPU = &specs.LinuxCPU{Shares: &shares, Quota: &quota, Period: &period}
}

func binds(s *specs.Spec) {
	s.Mounts = append(s.Mounts,
		specs.Mount{Destination: "/made/dir", Type: "bind", Source: "/etc", Options: []string{"rbind", "rprivate", "ro"}},
		specs.Mount{Destination: "/made/all", Type: "bind", Source: "/dev", Options: []string{"rbind", "rprivate", "rro"}},
		specs.Mount{Destination: "/made/file", Type: "bind", Source: "/etc/passwd", Options: []string{"bind", "nosuid", "nodev", "noexec", "rw"}},
		specs.Mount{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"noatime", "size=1m"}},
		specs.Mount{Destination: "/tmp/deep/er", Type: "tmpfs", Source: "x", Options: []string{"mode=1777"}},
	)
}

// links leads mounts over links in the image, which mustn't lead out of it.
func links(s *specs.Spec) {
	s.Mounts = append(s.Mounts,
		specs.Mount{Destination: "/var/run/mounted", Type: "bind", Source: "/etc", Options: []string{"rbind", "ro"}},
		specs.Mount{Destination: "/var/up/file", Type: "bind", Source: "/etc/passwd", Options: []string{"bind", "ro"}},
		specs.Mount{Destination: "/var/up", Type: "tmpfs", Source: "tmpfs"},
		specs.Mount{Destination: "/etc/dangling", Type: "bind", Source: "/etc/passwd", Options: []string{"bind", "ro"}},
	)
}

// cgroupView has a cgroup namespace, as on machines with cgroup v2.
func cgroupView(s *specs.Spec) {
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool { return m.Type == "cgroup" })
}

func devices(s *specs.Spec) {
	mode, id := os.FileMode(0o640), uint32(7)
	s.Linux.Devices = []specs.LinuxDevice{
		{Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229, FileMode: &mode, UID: &id, GID: &id},
		{Path: "/dev/deep/null", Type: "c", Major: 1, Minor: 3},
		{Path: "/dev/pipe", Type: "p", FileMode: &mode},
	}
	major, minor := int64(10), int64(229)
	s.Linux.Resources.Devices = append(s.Linux.Resources.Devices, specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: &major, Minor: &minor, Access: "rw"})
}

// bareImage has nothing but a command: no /proc, /sys, /dev, /etc, /tmp.
func bareImage(s *specs.Spec) {
	s.Root.Path = filepath.Join(filepath.Dir(s.Root.Path), "bare")
}

// nothingHidden lets the container set a host's name: its own.
func nothingHidden(s *specs.Spec) {
	s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = nil, nil
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UTSNamespace})
}

func ownNamespaces(s *specs.Spec) {
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace}, specs.LinuxNamespace{Type: specs.UTSNamespace})
}

// TestExecInACgroupNamespace: a process that is executed later is in the container's cgroup namespace, whose root is the
// container's cgroup. Where version 2 has nsdelegate, as with systemd, nobody comes in from within that namespace.
func TestExecInACgroupNamespace(t *testing.T) {
	onEach(t, func(f *ocitest.Fixture, _ bool) {
		id := f.ID()
		if _, err := f.TryStart(id, []string{"sleep", "1000"}, nil, cgroupView); err != nil {
			f.Fatal(err)
		}
		const look = "busybox grep -v ':/$' /proc/self/cgroup; for p in 1 self; do busybox readlink /proc/$p/ns/cgroup; done"
		namespaces := strings.Fields(execOutput(f, id, ocitest.Process("sh", "-c", look)))
		if len(namespaces) != 2 || namespaces[0] != namespaces[1] {
			f.Errorf("cgroups outside of the namespace, that of the container and that of the process: %q", namespaces)
		}
	})
}

// TestOpenFilesAreLimited as they were for errand, and not as Go raises that for itself.
func TestOpenFilesAreLimited(t *testing.T) {
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 1000, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
			t.Error(err)
		}
	}()
	want := fmt.Sprintf("1000\n%d\n", before.Max)
	const show = "ulimit -Sn; ulimit -Hn"
	onEach(t, func(f *ocitest.Fixture, _ bool) {
		id := f.Start([]string{"sh", "-c", show + "; exec sleep 1000"}, nil)
		if got := execOutput(f, id, ocitest.Process("sh", "-c", show)); got != want {
			f.Errorf("of an exec: %q, want %q", got, want)
		}
		if got := output(f, id); got != want {
			f.Errorf("of a container: %q, want %q", got, want)
		}
		asked := f.Start([]string{"sh", "-c", show}, nil, func(s *specs.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 50, Hard: 60}}
		})
		f.WaitExit(asked)
		if got := output(f, asked); got != "50\n60\n" {
			f.Errorf("of one that asks: %q", got)
		}
	})
}
