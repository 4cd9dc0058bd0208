package native

import (
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"errand.dev/errand/internal/oci/shimapi"
)

// attribute is what a mount option comes to.
type attribute struct {
	set, clear uint64
}

// attributes are the options of the mount itself; with an r before it, each is one of all that is mounted below, too.
var attributes = map[string]attribute{
	"ro":          {set: unix.MOUNT_ATTR_RDONLY},
	"rw":          {clear: unix.MOUNT_ATTR_RDONLY},
	"nosuid":      {set: unix.MOUNT_ATTR_NOSUID},
	"suid":        {clear: unix.MOUNT_ATTR_NOSUID},
	"nodev":       {set: unix.MOUNT_ATTR_NODEV},
	"dev":         {clear: unix.MOUNT_ATTR_NODEV},
	"noexec":      {set: unix.MOUNT_ATTR_NOEXEC},
	"exec":        {clear: unix.MOUNT_ATTR_NOEXEC},
	"nodiratime":  {set: unix.MOUNT_ATTR_NODIRATIME},
	"diratime":    {clear: unix.MOUNT_ATTR_NODIRATIME},
	"nosymfollow": {set: unix.MOUNT_ATTR_NOSYMFOLLOW},
	"symfollow":   {clear: unix.MOUNT_ATTR_NOSYMFOLLOW},
	"noatime":     {set: unix.MOUNT_ATTR_NOATIME, clear: unix.MOUNT_ATTR__ATIME},
	"relatime":    {set: unix.MOUNT_ATTR_RELATIME, clear: unix.MOUNT_ATTR__ATIME},
	"strictatime": {set: unix.MOUNT_ATTR_STRICTATIME, clear: unix.MOUNT_ATTR__ATIME},
}

var propagations = map[string]uint64{
	"rprivate": unix.MS_PRIVATE, "rslave": unix.MS_SLAVE, "rshared": unix.MS_SHARED,
}

// ignored options say what is so anyway, or that the mount is a bind.
var ignored = []string{"bind", "rbind", "defaults"}

// fileSystems are those that may be mounted beside binds: the ones of a container's own that the kernel makes up.
var fileSystems = []string{"proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup"}

func mounts(l *shimapi.Launch, spec *specs.Spec) error {
	for _, m := range spec.Mounts {
		out, err := mount(m)
		if err != nil {
			return err
		}
		for _, earlier := range l.Mounts {
			// These come last, and would cover what comes after them.
			if made := earlier.Type; (made == "proc" || made == "cgroup") && within(out.Destination, earlier.Destination) {
				return unsupported("a mount at or in the %s at %s", made, earlier.Destination)
			}
		}
		l.Mounts = append(l.Mounts, out)
	}
	return nil
}

func within(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }

func mount(m specs.Mount) (shimapi.Mount, error) {
	out := shimapi.Mount{Destination: path.Clean(m.Destination)}
	switch {
	case !path.IsAbs(out.Destination) || out.Destination == "/":
		return out, unsupported("a mount at %q", m.Destination)
	case strings.HasPrefix(out.Destination, "/proc/"):
		return out, unsupported("a mount in /proc")
	case len(m.UIDMappings)+len(m.GIDMappings) > 0:
		return out, unsupported("an id-mapped mount")
	}
	bind := m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
	switch {
	case bind && out.Destination == "/proc":
		return out, unsupported("a bind mount at /proc")
	case bind && !path.IsAbs(m.Source):
		return out, unsupported("a bind mount of %q", m.Source)
	case bind:
		out.Bind, out.Recursive = m.Source, slices.Contains(m.Options, "rbind")
	case !slices.Contains(fileSystems, m.Type):
		return out, unsupported("a mount of type %s", m.Type)
	case (m.Type == "proc") != (out.Destination == "/proc"):
		return out, unsupported("a mount of type %s at %s", m.Type, out.Destination)
	default:
		out.Type, out.Source = m.Type, m.Source
	}
	for _, o := range m.Options {
		if err := option(&out, o); err != nil {
			return out, err
		}
	}
	if !bind && (out.SetAll != 0 || out.Propagation != 0 && out.Propagation != unix.MS_PRIVATE) {
		return out, unsupported("a recursive option or propagation of a mount of type %s", m.Type)
	}
	return out, nil
}

func option(m *shimapi.Mount, o string) error {
	if slices.Contains(ignored, o) || m.Type == "devpts" && o == "newinstance" {
		return nil
	}
	if a, ok := attributes[o]; ok {
		m.Set = m.Set&^(a.clear) | a.set
		m.Clear = m.Clear&^a.set | a.clear
		return nil
	}
	if a, ok := attributes[strings.TrimPrefix(o, "r")]; ok && strings.HasPrefix(o, "r") && a.clear == 0 {
		m.SetAll |= a.set
		return nil
	}
	if p, ok := propagations[o]; ok {
		m.Propagation = p
		return nil
	}
	if m.Bind != "" || strings.HasPrefix(o, "tmpcopyup") || strings.Contains(o, "idmap") {
		return unsupported("the mount option %s", o)
	}
	m.Options = append(m.Options, o) // the file system's own
	return nil
}
