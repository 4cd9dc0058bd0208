package launch

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"errand.dev/errand/internal/oci/shim/cgroup"
	"errand.dev/errand/internal/oci/shimapi"
)

// childMount is a mount that only the child can make, as it shows the namespaces of whoever makes it.
type childMount struct {
	shimapi.Mount
	at int // where to
}

// procMount is that of /proc, with what is to be hidden in it.
type procMount struct{ childMount }

func (c *container) mountAll() error {
	for i, m := range c.Mounts {
		var err error
		switch {
		case c.sources.binds[i] >= 0:
			err = c.bind(m, c.sources.binds[i])
		case m.Type == "proc":
			c.proc = &procMount{}
			err = c.leaveToChild(&c.proc.childMount, m)
		case m.Type == "cgroup" && len(c.Cgroups.V1) > 0:
			err = c.mountCgroups(m, c.sources.cgroups[i])
		case m.Type == "cgroup":
			c.cgroup2 = &childMount{}
			err = c.leaveToChild(c.cgroup2, m)
		default:
			err = c.mountNew(m)
		}
		if err != nil {
			return fmt.Errorf("%s at %s: %w", describe(m), m.Destination, err)
		}
	}
	return nil
}

func describe(m shimapi.Mount) string {
	if m.Bind != "" {
		return m.Bind
	}
	return m.Type
}

func (c *container) bind(m shimapi.Mount, source int) error {
	if err := setAttributes(source, m); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(source, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	var at int
	var err error
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		at, err = c.makeDir(m.Destination, 0o755)
	} else {
		at, err = c.makeFile(m.Destination)
	}
	if err != nil {
		return err
	}
	defer unix.Close(at)
	return attach(source, at, "")
}

// setAttributes sets what the mount asks for. Propagation of its own is always set: a copy of a shared mount is shared.
func setAttributes(fd int, m shimapi.Mount) error {
	all := unix.MountAttr{Propagation: m.Propagation, Attr_set: m.SetAll}
	if all.Propagation == 0 {
		all.Propagation = unix.MS_PRIVATE
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &all); err != nil {
		return fmt.Errorf("set the attributes of all: %w", err)
	}
	if m.Set == 0 && m.Clear == 0 {
		return nil
	}
	own := unix.MountAttr{Attr_set: m.Set, Attr_clr: m.Clear}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &own); err != nil {
		return fmt.Errorf("set the attributes: %w", err)
	}
	return nil
}

// leaveToChild finds where a mount goes.
func (c *container) leaveToChild(into *childMount, m shimapi.Mount) error {
	at, err := c.makeRealDir(m.Destination)
	if err != nil {
		return err
	}
	*into = childMount{Mount: m, at: c.hold(at)}
	return nil
}

// makeRealDir is makeDir for the kernel's own file systems: an image that has a link in such a place would have what
// protects them end up somewhere else.
func (c *container) makeRealDir(p string) (int, error) {
	fd, err := c.makeDir(p, 0o755)
	if err != nil {
		return -1, err
	}
	_ = unix.Close(fd)
	return openat2(c.root, p, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS,
	})
}

// mountNew mounts a new file system.
func (c *container) mountNew(m shimapi.Mount) error {
	makeDir := c.makeRealDir
	if m.Type == "tmpfs" {
		makeDir = func(p string) (int, error) { return c.makeDir(p, 0o755) }
	}
	at, err := makeDir(m.Destination)
	if err != nil {
		return err
	}
	defer unix.Close(at)
	options := m.Options
	if m.Type == "tmpfs" && !hasOption(options, "mode") {
		// It takes the mode of what it covers.
		var st unix.Stat_t
		if err := unix.Fstat(at, &st); err != nil {
			return os.NewSyscallError("fstat", err)
		}
		options = append(options[:len(options):len(options)], fmt.Sprintf("mode=%o", st.Mode&0o7777))
	}
	fd, err := newMount(m.Type, m.Source, options, m.Set)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return attach(fd, at, "")
}

func hasOption(options []string, name string) bool {
	for _, o := range options {
		if key, _, _ := strings.Cut(o, "="); key == name {
			return true
		}
	}
	return false
}

// newMount makes a file system, mounted nowhere yet.
func newMount(kind, source string, options []string, attributes uint64) (int, error) {
	fs, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("fsopen: %w", err)
	}
	defer unix.Close(fs)
	if source != "" {
		if err := unix.FsconfigSetString(fs, "source", source); err != nil {
			return -1, explain(fs, fmt.Errorf("source %q: %w", source, err))
		}
	}
	for _, o := range options {
		key, value, isString := strings.Cut(o, "=")
		if isString {
			err = unix.FsconfigSetString(fs, key, value)
		} else {
			err = unix.FsconfigSetFlag(fs, key)
		}
		if err != nil {
			return -1, explain(fs, fmt.Errorf("option %q: %w", o, err))
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, explain(fs, fmt.Errorf("fsconfig: %w", err))
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, int(attributes))
	if err != nil {
		return -1, explain(fs, fmt.Errorf("fsmount: %w", err))
	}
	return fd, nil
}

// explain adds what the kernel has to say.
func explain(fs int, err error) error {
	buf := make([]byte, 1024)
	n, rerr := unix.Read(fs, buf)
	if rerr != nil || n <= 0 {
		return err
	}
	return fmt.Errorf("%w (%s)", err, strings.TrimSpace(string(buf[:n])))
}

// mountCgroups shows the container its cgroups of version 1, each hierarchy in a directory of its name.
func (c *container) mountCgroups(m shimapi.Mount, cgroups []int) error {
	at, err := c.makeDir(m.Destination, 0o755)
	if err != nil {
		return err
	}
	defer unix.Close(at)
	set := m.Set &^ unix.MOUNT_ATTR_RDONLY
	fd, err := newMount("tmpfs", "tmpfs", []string{"mode=755"}, set)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := attach(fd, at, ""); err != nil {
		return err
	}
	for i, g := range c.Cgroups.V1 {
		if err := mountCgroup(fd, g, cgroups[i], m.Set); err != nil {
			return fmt.Errorf("%s: %w", g.Name, err)
		}
	}
	return unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: m.Set})
}

func mountCgroup(dir int, g cgroup.V1, mount int, attributes uint64) error {
	if err := setAttributes(mount, shimapi.Mount{Set: attributes &^ unix.MOUNT_ATTR__ATIME}); err != nil {
		return err
	}
	if err := unix.Mkdirat(dir, g.Name, 0o755); err != nil {
		return os.NewSyscallError("mkdirat", err)
	}
	if err := attach(mount, dir, g.Name); err != nil {
		return err
	}
	for _, alias := range g.Aliases {
		if err := unix.Symlinkat(g.Name, dir, alias); err != nil && !errors.Is(err, unix.EEXIST) {
			return os.NewSyscallError("symlinkat", err)
		}
	}
	return nil
}

// mountOf returns the mount at exactly this place, the last one if there are several.
func (c *container) mountOf(destination string) *shimapi.Mount {
	for i := len(c.Mounts) - 1; i >= 0; i-- {
		if path.Clean(c.Mounts[i].Destination) == destination {
			return &c.Mounts[i]
		}
	}
	return nil
}
