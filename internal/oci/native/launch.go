package native

import (
	"path"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"errand.dev/errand/internal/oci/shimapi"
)

// Translator translates specifications. The zero value is ready; it may be used concurrently.
type Translator struct {
	filters filters
}

// Launch translates a container. Errors: *Unsupported.
func (t *Translator) Launch(spec *specs.Spec) (*shimapi.Launch, error) {
	if err := refuse(spec); err != nil {
		return nil, err
	}
	l := &shimapi.Launch{Root: spec.Root.Path, ReadonlyRoot: spec.Root.Readonly}
	for _, step := range []func(*shimapi.Launch, *specs.Spec) error{namespaces, mounts, devices, coveredPaths} {
		if err := step(l, spec); err != nil {
			return nil, err
		}
	}
	p, err := t.Process(spec.Process)
	if err != nil {
		return nil, err
	}
	l.Process = *p
	if profile := spec.Linux.Seccomp; profile != nil {
		filter, err := t.filters.of(profile)
		if err != nil {
			return nil, err
		}
		l.Seccomp, l.SeccompFlags = filter.Program, filter.Flags
	}
	return l, nil
}

// refuse names what is nowhere looked at below.
func refuse(spec *specs.Spec) error {
	if spec.Process == nil || spec.Root == nil || spec.Linux == nil {
		return unsupported("a specification without process, root or linux")
	}
	l := spec.Linux
	for what, asked := range map[string]bool{
		"a relative root.path":      !path.IsAbs(spec.Root.Path),
		"hostname":                  spec.Hostname != "",
		"domainname":                spec.Domainname != "",
		"hooks":                     hasHooks(spec.Hooks),
		"linux.uidMappings":         len(l.UIDMappings)+len(l.GIDMappings) > 0,
		"linux.sysctl":              len(l.Sysctl) > 0,
		"linux.intelRdt":            l.IntelRdt != nil,
		"linux.mountLabel":          l.MountLabel != "",
		"linux.personality":         l.Personality != nil,
		"linux.timeOffsets":         len(l.TimeOffsets) > 0,
		"linux.netDevices":          len(l.NetDevices) > 0,
		"linux.memoryPolicy":        l.MemoryPolicy != nil,
		"linux.rootfsPropagation":   l.RootfsPropagation == "unbindable" || l.RootfsPropagation == "runbindable",
		"resources of block I/O":    l.Resources != nil && l.Resources.BlockIO != nil,
		"resources of the network":  l.Resources != nil && l.Resources.Network != nil,
		"resources of RDMA":         l.Resources != nil && len(l.Resources.Rdma) > 0,
		"resources.cpu.realtime…":   l.Resources != nil && l.Resources.CPU != nil && (l.Resources.CPU.RealtimePeriod != nil || l.Resources.CPU.RealtimeRuntime != nil),
		"specification of a VM":     spec.VM != nil,
		"specification of Windows":  spec.Windows != nil,
		"specification of Solaris":  spec.Solaris != nil,
		"specification of z/OS":     spec.ZOS != nil,
		"specification of FreeBSD":  spec.FreeBSD != nil,
		"a cgroups path of systemd": !path.IsAbs(l.CgroupsPath),
	} {
		if asked {
			return unsupported("%s", what)
		}
	}
	return nil
}

func hasHooks(h *specs.Hooks) bool {
	//lint:ignore SA1019 a specification that still has the deprecated one is not for the launcher either
	return h != nil && len(h.Prestart)+len(h.CreateRuntime)+len(h.CreateContainer)+len(h.StartContainer)+len(h.Poststart)+len(h.Poststop) > 0
}

// namespaces must bring a PID namespace of the container's own: in a shared one there may be processes with CAP_SYS_PTRACE,
// from which a process that is being started isn't safe while it borrows the shim's memory.
func namespaces(l *shimapi.Launch, spec *specs.Spec) error {
	kinds := map[specs.LinuxNamespaceType]int{
		specs.NetworkNamespace: unix.CLONE_NEWNET, specs.IPCNamespace: unix.CLONE_NEWIPC, specs.UTSNamespace: unix.CLONE_NEWUTS,
	}
	own := map[specs.LinuxNamespaceType]bool{}
	for _, ns := range spec.Linux.Namespaces {
		kind, joinable := kinds[ns.Type]
		switch {
		case joinable && ns.Path != "":
			l.Join = append(l.Join, shimapi.Namespace{Type: kind, Path: ns.Path})
		case joinable:
			l.Unshare |= kind
		case ns.Path != "":
			return unsupported("joining a %s namespace", ns.Type)
		default:
			own[ns.Type] = true
		}
	}
	l.CgroupNamespace = own[specs.CgroupNamespace]
	switch {
	case !own[specs.MountNamespace]:
		return unsupported("the host's mount namespace")
	case !own[specs.PIDNamespace]:
		return unsupported("the host's PID namespace")
	case own[specs.UserNamespace] || own[specs.TimeNamespace]:
		return unsupported("a user or time namespace")
	}
	return nil
}

// coveredPaths are taken in the kernel's own file systems only, where the host's tell whether they are files.
func coveredPaths(l *shimapi.Launch, spec *specs.Spec) error {
	l.Masked, l.Readonly = spec.Linux.MaskedPaths, spec.Linux.ReadonlyPaths
	proc := false
	for _, m := range l.Mounts {
		proc = proc || m.Type == "proc" && path.Clean(m.Destination) == "/proc"
	}
	for _, p := range append(l.Masked[:len(l.Masked):len(l.Masked)], l.Readonly...) {
		if path.Clean(p) != p || !strings.HasPrefix(p, "/proc/") && !strings.HasPrefix(p, "/sys/") {
			return unsupported("covering %s", p)
		}
		if strings.HasPrefix(p, "/proc/") && !proc {
			return unsupported("covering %s without a /proc of its own", p)
		}
	}
	return nil
}

func devices(l *shimapi.Launch, spec *specs.Spec) error {
	for _, d := range spec.Linux.Devices {
		kinds := map[string]uint32{"c": unix.S_IFCHR, "u": unix.S_IFCHR, "b": unix.S_IFBLK, "p": unix.S_IFIFO}
		kind, ok := kinds[d.Type]
		if !ok || !strings.HasPrefix(path.Clean(d.Path), "/dev/") {
			return unsupported("the device %s of type %q", d.Path, d.Type)
		}
		out := shimapi.Device{Path: d.Path, Mode: kind | 0o666, Dev: unix.Mkdev(uint32(d.Major), uint32(d.Minor))}
		if d.FileMode != nil {
			out.Mode = kind | uint32(d.FileMode.Perm())
		}
		if d.UID != nil {
			out.UID = *d.UID
		}
		if d.GID != nil {
			out.GID = *d.GID
		}
		if usual(out.Path) {
			continue
		}
		l.Devices = append(l.Devices, out)
	}
	return nil
}

// usual devices every container has anyway.
func usual(p string) bool {
	switch path.Clean(p) {
	case "/dev/null", "/dev/zero", "/dev/full", "/dev/tty", "/dev/random", "/dev/urandom", "/dev/ptmx", "/dev/console":
		return true
	}
	return false
}
