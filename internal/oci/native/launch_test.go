package native

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"errand.dev/errand/internal/oci/shimapi"
)

// spec is one that the launcher takes, changed by an edit.
func spec(edit func(*specs.Spec)) *specs.Spec {
	s := &specs.Spec{
		Root: &specs.Root{Path: "/root"},
		Process: &specs.Process{
			Args: []string{"x"}, Cwd: "/", Env: []string{"PATH=/bin"}, Capabilities: &specs.LinuxCapabilities{},
		},
		Mounts: []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}},
		Linux: &specs.Linux{
			CgroupsPath: "/c",
			Namespaces:  []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}},
			Resources:   &specs.LinuxResources{},
		},
	}
	if edit != nil {
		edit(s)
	}
	return s
}

func addMount(dst, kind, src string, options ...string) func(*specs.Spec) {
	return func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: dst, Type: kind, Source: src, Options: options})
	}
}

func addNamespace(ns specs.LinuxNamespace) func(*specs.Spec) {
	return func(s *specs.Spec) { s.Linux.Namespaces = append(s.Linux.Namespaces, ns) }
}

// TestRefused: what the launcher doesn't take it names, so that an OCI runtime takes it.
func TestRefused(t *testing.T) {
	number := uint64(1)
	period := int64(1)
	for want, edit := range map[string]func(*specs.Spec){
		"without process":                func(s *specs.Spec) { s.Process = nil },
		"process, root or linux":         func(s *specs.Spec) { s.Root = nil },
		"or linux":                       func(s *specs.Spec) { s.Linux = nil },
		"a relative root.path":           func(s *specs.Spec) { s.Root.Path = "x" },
		"hostname":                       func(s *specs.Spec) { s.Hostname = "x" },
		"domainname":                     func(s *specs.Spec) { s.Domainname = "x" },
		"hooks":                          func(s *specs.Spec) { s.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: "/x"}}} },
		"linux.uidMappings":              func(s *specs.Spec) { s.Linux.GIDMappings = []specs.LinuxIDMapping{{}} },
		"linux.sysctl":                   func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"a": "b"} },
		"linux.intelRdt":                 func(s *specs.Spec) { s.Linux.IntelRdt = &specs.LinuxIntelRdt{} },
		"linux.mountLabel":               func(s *specs.Spec) { s.Linux.MountLabel = "x" },
		"linux.personality":              func(s *specs.Spec) { s.Linux.Personality = &specs.LinuxPersonality{} },
		"linux.timeOffsets":              func(s *specs.Spec) { s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"x": {}} },
		"linux.netDevices":               func(s *specs.Spec) { s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"x": {}} },
		"linux.memoryPolicy":             func(s *specs.Spec) { s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{} },
		"linux.rootfsPropagation":        func(s *specs.Spec) { s.Linux.RootfsPropagation = "runbindable" },
		"block I/O":                      func(s *specs.Spec) { s.Linux.Resources.BlockIO = &specs.LinuxBlockIO{} },
		"the network":                    func(s *specs.Spec) { s.Linux.Resources.Network = &specs.LinuxNetwork{} },
		"RDMA":                           func(s *specs.Spec) { s.Linux.Resources.Rdma = map[string]specs.LinuxRdma{"x": {}} },
		"resources.cpu.realtime":         func(s *specs.Spec) { s.Linux.Resources.CPU = &specs.LinuxCPU{RealtimePeriod: &number, Quota: &period} },
		"a VM":                           func(s *specs.Spec) { s.VM = &specs.VM{} },
		"Windows":                        func(s *specs.Spec) { s.Windows = &specs.Windows{} },
		"a cgroups path of systemd":      func(s *specs.Spec) { s.Linux.CgroupsPath = "a.slice:b:c" },
		"the host's mount namespace":     func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[:1] },
		"the host's PID namespace":       func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[1:] },
		"joining a pid namespace":        func(s *specs.Spec) { s.Linux.Namespaces[0].Path = "/x" },
		"joining a cgroup namespace":     addNamespace(specs.LinuxNamespace{Type: specs.CgroupNamespace, Path: "/x"}),
		"a user or time namespace":       addNamespace(specs.LinuxNamespace{Type: specs.UserNamespace}),
		`a mount at "x"`:                 addMount("x", "tmpfs", ""),
		`a mount at "/"`:                 addMount("/", "tmpfs", ""),
		`a mount at "/../"`:              addMount("/../", "tmpfs", ""),
		"a mount in /proc":               addMount("/proc/sys/../x", "bind", "/x", "bind"),
		"a bind mount at /proc":          addMount("/proc", "bind", "/proc", "rbind"),
		"a mount of type tmpfs at /proc": addMount("/proc/", "tmpfs", ""),
		"a mount of type proc at /mnt":   addMount("/mnt", "proc", ""),
		"in the proc at /proc":           addMount("/proc", "proc", ""),
		"in the cgroup at /sys/fs/cgroup": func(s *specs.Spec) {
			addMount("/sys/fs/cgroup", "cgroup", "")(s)
			addMount("/sys/fs/cgroup/x", "tmpfs", "")(s)
		},
		"an id-mapped mount":                func(s *specs.Spec) { s.Mounts[0].UIDMappings = []specs.LinuxIDMapping{{}} },
		`a bind mount of "x"`:               addMount("/x", "bind", "x"),
		"a mount of type overlay":           addMount("/x", "overlay", ""),
		"the mount option tmpcopyup":        addMount("/x", "tmpfs", "", "tmpcopyup"),
		"the mount option idmap":            addMount("/x", "bind", "/x", "idmap"),
		"the mount option size=1":           addMount("/x", "bind", "/x", "size=1"),
		"the mount option rrw":              addMount("/x", "bind", "/x", "rrw"),
		"the mount option unbindable":       addMount("/x", "bind", "/x", "unbindable"),
		"a recursive option or propagation": addMount("/x", "tmpfs", "", "rshared"),
		"propagation of a mount of type":    addMount("/x", "tmpfs", "", "rro"),
		"covering /etc/shadow":              func(s *specs.Spec) { s.Linux.MaskedPaths = []string{"/etc/shadow"} },
		"covering /proc/../etc":             func(s *specs.Spec) { s.Linux.ReadonlyPaths = []string{"/proc/../etc"} },
		"covering /proc/x without":          func(s *specs.Spec) { s.Mounts, s.Linux.ReadonlyPaths = nil, []string{"/proc/x"} },
		"the device /dev/../etc/x":          func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/../etc/x", Type: "c"}} },
		`of type "q"`:                       func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/x", Type: "q"}} },
		"process.selinuxLabel":              func(s *specs.Spec) { s.Process.SelinuxLabel = "x" },
		"process.commandLine":               func(s *specs.Spec) { s.Process.CommandLine = "x" },
		"process.scheduler":                 func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{} },
		"process.ioPriority":                func(s *specs.Spec) { s.Process.IOPriority = &specs.LinuxIOPriority{} },
		"process.execCPUAffinity":           func(s *specs.Spec) { s.Process.ExecCPUAffinity = &specs.CPUAffinity{} },
		"without a word about capabilities": func(s *specs.Spec) { s.Process.Capabilities = nil },
		"the capability CAP_NONSENSE":       func(s *specs.Spec) { s.Process.Capabilities.Bounding = []string{"CAP_NONSENSE"} },
		"CAP_SYS_PTRACE":                    func(s *specs.Spec) { s.Process.Capabilities.Bounding = []string{"CAP_SYS_PTRACE"} },
		"CAP_SYS_ADMIN":                     func(s *specs.Spec) { s.Process.Capabilities.Permitted = []string{"CAP_SYS_ADMIN"} },
		"CAP_PERFMON":                       func(s *specs.Spec) { s.Process.Capabilities.Ambient = []string{"CAP_PERFMON"} },
		"the limit RLIMIT_NONSENSE":         func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NONSENSE"}} },
		`the environment variable "x"`:      func(s *specs.Spec) { s.Process.Env = []string{"x"} },
		`the environment variable "=x"`:     func(s *specs.Spec) { s.Process.Env = []string{"=x"} },
		"the seccomp profile": func(s *specs.Spec) {
			s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActNotify, ListenerPath: "/x"}
		},
	} {
		_, err := new(Translator).Launch(spec(edit))
		var not *Unsupported
		if !errors.As(err, &not) || !strings.Contains(not.What, want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestMountOptions(t *testing.T) {
	const atime = unix.MOUNT_ATTR__ATIME
	for _, tc := range []struct {
		kind    string
		options []string
		want    shimapi.Mount
	}{
		{"bind", []string{"bind"}, shimapi.Mount{Bind: "/s"}},
		{"", []string{"rbind"}, shimapi.Mount{Bind: "/s", Recursive: true}},
		{"bind", []string{"rbind", "rprivate", "ro"}, shimapi.Mount{Bind: "/s", Recursive: true, Propagation: unix.MS_PRIVATE, Set: unix.MOUNT_ATTR_RDONLY}},
		{"bind", []string{"rbind", "rslave", "rro"}, shimapi.Mount{Bind: "/s", Recursive: true, Propagation: unix.MS_SLAVE, SetAll: unix.MOUNT_ATTR_RDONLY}},
		{"bind", []string{"rshared", "ro", "rw"}, shimapi.Mount{Bind: "/s", Propagation: unix.MS_SHARED, Clear: unix.MOUNT_ATTR_RDONLY}},
		{"bind", []string{"rw", "ro"}, shimapi.Mount{Bind: "/s", Set: unix.MOUNT_ATTR_RDONLY}},
		{"bind", []string{"nosuid", "nodev", "noexec"}, shimapi.Mount{Bind: "/s", Set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC}},
		{"bind", []string{"noatime", "relatime"}, shimapi.Mount{Bind: "/s", Set: unix.MOUNT_ATTR_RELATIME, Clear: atime}},
		{"bind", []string{"relatime", "noatime"}, shimapi.Mount{Bind: "/s", Set: unix.MOUNT_ATTR_NOATIME, Clear: atime}},
		{"tmpfs", []string{"nosuid", "strictatime", "mode=755", "size=65536k"},
			shimapi.Mount{Type: "tmpfs", Source: "/s", Set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_STRICTATIME, Clear: atime, Options: []string{"mode=755", "size=65536k"}}},
		{"devpts", []string{"newinstance", "gid=5"}, shimapi.Mount{Type: "devpts", Source: "/s", Options: []string{"gid=5"}}},
		{"tmpfs", []string{"newinstance"}, shimapi.Mount{Type: "tmpfs", Source: "/s", Options: []string{"newinstance"}}},
	} {
		tc.want.Destination = "/d"
		got, err := mount(specs.Mount{Destination: "/d/", Type: tc.kind, Source: "/s", Options: tc.options})
		if diff := cmp.Diff(tc.want, got); err != nil || diff != "" {
			t.Errorf("%s %v: %v %s", tc.kind, tc.options, err, diff)
		}
	}
}

func TestNamespaces(t *testing.T) {
	l, err := new(Translator).Launch(spec(func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: "/n"},
			specs.LinuxNamespace{Type: specs.IPCNamespace}, specs.LinuxNamespace{Type: specs.UTSNamespace}, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]shimapi.Namespace{{Type: unix.CLONE_NEWNET, Path: "/n"}}, l.Join); diff != "" {
		t.Error(diff)
	}
	if l.Unshare != unix.CLONE_NEWIPC|unix.CLONE_NEWUTS || !l.CgroupNamespace {
		t.Errorf("unshare %#x, cgroup namespace %v", l.Unshare, l.CgroupNamespace)
	}
}

func TestDevices(t *testing.T) {
	mode, id := specs.LinuxDevice{}.FileMode, uint32(7)
	l, err := new(Translator).Launch(spec(func(s *specs.Spec) {
		s.Linux.Devices = []specs.LinuxDevice{
			{Path: "/dev/null", Type: "c", Major: 8, Minor: 0},
			{Path: "/dev/./console", Type: "c", Major: 8, Minor: 0},
			{Path: "/dev/a", Type: "b", Major: 8, Minor: 300, FileMode: mode, UID: &id, GID: &id},
			{Path: "/dev/p", Type: "p"},
		}
	}))
	if err != nil {
		t.Fatal(err)
	}
	want := []shimapi.Device{
		{Path: "/dev/a", Mode: unix.S_IFBLK | 0o666, Dev: unix.Mkdev(8, 300), UID: 7, GID: 7},
		{Path: "/dev/p", Mode: unix.S_IFIFO | 0o666},
	}
	if diff := cmp.Diff(want, l.Devices); diff != "" {
		t.Error(diff)
	}
}

func TestCoveredPaths(t *testing.T) {
	l, err := new(Translator).Launch(spec(func(s *specs.Spec) {
		s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = []string{"/proc/kcore", "/sys/firmware"}, []string{"/proc/sys"}
	}))
	if err != nil || !cmp.Equal(l.Masked, []string{"/proc/kcore", "/sys/firmware"}) || !cmp.Equal(l.Readonly, []string{"/proc/sys"}) {
		t.Errorf("%+v, %v", l, err)
	}
}

func TestProcess(t *testing.T) {
	umask, score := uint32(0o077), -5
	got, err := new(Translator).Process(&specs.Process{
		Args: []string{"a"}, Cwd: "/w", NoNewPrivileges: true, OOMScoreAdj: &score, ApparmorProfile: "p",
		Env:         []string{"A=1", "HOME=", "B=", "A=2", "C=x=y"},
		User:        specs.User{UID: 1, GID: 2, AdditionalGids: []uint32{3}, Umask: &umask},
		ConsoleSize: &specs.Box{Height: 24, Width: 80},
		Capabilities: &specs.LinuxCapabilities{
			Bounding: []string{"CAP_CHOWN", "CAP_CHECKPOINT_RESTORE"}, Effective: []string{"CAP_CHOWN"}, Permitted: []string{"CAP_KILL"},
			Inheritable: []string{"CAP_SETUID"}, Ambient: []string{"CAP_BPF"},
		},
		Rlimits: []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 1, Hard: 2}},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := &shimapi.Process{
		Args: []string{"a"}, Cwd: "/w", NoNewPrivs: true, OOMScoreAdj: &score, AppArmor: "p",
		Env: []string{"B=", "A=2", "C=x=y"}, UID: 1, GID: 2, Groups: []uint32{3}, Umask: 0o077, Rows: 24, Columns: 80,
		Bounding: 1<<unix.CAP_CHOWN | 1<<unix.CAP_CHECKPOINT_RESTORE, Effective: 1 << unix.CAP_CHOWN, Permitted: 1 << unix.CAP_KILL,
		Inheritable: 1 << unix.CAP_SETUID, Ambient: 1 << unix.CAP_BPF,
		Rlimits: []shimapi.Rlimit{{Resource: unix.RLIMIT_NOFILE, Soft: 1, Hard: 2}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got, err := new(Translator).Process(spec(nil).Process); err != nil || got.Umask != 0o022 {
		t.Errorf("umask by default: %+v, %v", got, err)
	}
}

// TestFiltersAreCompiledOnce: and few of them are kept.
func TestFiltersAreCompiledOnce(t *testing.T) {
	tr := &Translator{}
	profile := func(errno uint) *specs.LinuxSeccomp {
		return &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, DefaultErrnoRet: &errno}
	}
	one, err := tr.filters.of(profile(1))
	if err != nil {
		t.Fatal(err)
	}
	if again, err := tr.filters.of(profile(1)); err != nil || again != one {
		t.Errorf("compiled again: %v", err)
	}
	for i := range uint(3 * maxFilters) {
		if _, err := tr.filters.of(profile(i + 1)); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(tr.filters.compiled); n > maxFilters {
		t.Errorf("%d are kept", n)
	}
}
