package launch

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// addMounts has the child mount what shows its own namespaces.
func (c *container) addMounts(p *program) {
	if c.CgroupNamespace {
		// Not by clone3: the namespace's root is the cgroup that its maker is in.
		p.add("unshare the cgroup namespace", unix.SYS_UNSHARE, unix.CLONE_NEWCGROUP)
	}
	if c.cgroup2 != nil {
		addMount(p, "cgroup2", c.cgroup2)
	}
	if c.proc == nil {
		return
	}
	proc := addMount(p, "proc", &c.proc.childMount)
	for _, path := range c.Masked {
		cover, ok := c.sources.covers[path]
		if rel, inProc := strings.CutPrefix(path, "/proc/"); ok && inProc {
			at := addOpen(p, proc, rel, 1)
			p.add("hide "+path, unix.SYS_MOVE_MOUNT, cover, "", at, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
		}
	}
	for _, path := range c.Readonly {
		if rel, inProc := strings.CutPrefix(path, "/proc/"); inProc {
			addProtection(p, proc, rel)
		}
	}
}

// addMount has the child mount a file system; the result is the mount's descriptor.
func addMount(p *program, kind string, m *childMount) result {
	what := fmt.Sprintf("mount %s at %s", kind, m.Destination)
	fs := p.add(what, unix.SYS_FSOPEN, kind, unix.FSOPEN_CLOEXEC)
	p.add(what, unix.SYS_FSCONFIG, fs, unix.FSCONFIG_SET_STRING, "source", m.Source, 0)
	for _, o := range m.Options {
		key, value, isString := strings.Cut(o, "=")
		if isString {
			p.add(what+": "+o, unix.SYS_FSCONFIG, fs, unix.FSCONFIG_SET_STRING, key, value, 0)
		} else {
			p.add(what+": "+o, unix.SYS_FSCONFIG, fs, unix.FSCONFIG_SET_FLAG, key, 0, 0)
		}
	}
	p.add(what, unix.SYS_FSCONFIG, fs, unix.FSCONFIG_CMD_CREATE, 0, 0, 0)
	mount := p.add(what, unix.SYS_FSMOUNT, fs, unix.FSMOUNT_CLOEXEC, m.Set)
	p.add(what, unix.SYS_MOVE_MOUNT, mount, "", m.at, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	return mount
}

const sizeofMountAttr = 32

// addOpen opens, O_PATH, what is in a new mount; where it isn't, so many calls are skipped.
func addOpen(p *program, mount result, rel string, skip int) result {
	how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS}
	fd := p.add("open "+rel, unix.SYS_OPENAT2, mount, rel, pin(p, how), unix.SizeofOpenHow)
	p.last().skip = skip
	return fd
}

// addProtection makes what is at a path in a new mount read-only.
func addProtection(p *program, mount result, rel string) {
	what := "make read-only: " + rel
	at := addOpen(p, mount, rel, 3)
	copied := p.add(what, unix.SYS_OPEN_TREE, at, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE)
	attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	p.add(what, unix.SYS_MOUNT_SETATTR, copied, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, pin(p, attr), sizeofMountAttr)
	p.add(what, unix.SYS_MOVE_MOUNT, copied, "", at, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}
