package launch

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Limits of resolving paths that somebody else may change meanwhile.
const (
	maxRaces = 1 << 12 // lookups that were disturbed by renames or mounts anywhere on the machine
	maxLinks = 40      // links that lead to what has to be made; as many as the kernel follows
)

// resolve opens a path below root. Links are followed inside of it, but for those of /proc.
func resolve(root int, p string, flags uint64) (int, error) {
	return openat2(root, p, &unix.OpenHow{
		Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
}

// openat2 tries again where the kernel says so: it can't vouch for a ".." while something is renamed or mounted.
func openat2(dir int, p string, how *unix.OpenHow) (fd int, err error) {
	for range maxRaces {
		fd, err = unix.Openat2(dir, p, how)
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			break
		}
	}
	return fd, err
}

// entry opens, O_PATH, what has a name in a directory, itself if it's a link.
func entry(dir int, name string, flags uint64) (int, error) {
	return openat2(dir, name, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC | flags, Resolve: unix.RESOLVE_BENEATH,
	})
}

// lookup opens, O_PATH, a path in the container.
func (c *container) lookup(p string) (int, error) {
	return resolve(c.root, p, unix.O_PATH)
}

// makeDir opens a directory in the container, and makes it, and those on the way, where they are missing.
func (c *container) makeDir(p string, mode uint32) (int, error) {
	return makePath(c.root, p, unix.S_IFDIR|mode, maxLinks)
}

// makeFile opens, O_PATH, a file in the container, and makes it empty where it is missing.
func (c *container) makeFile(p string) (int, error) {
	return makePath(c.root, p, unix.S_IFREG|0o644, maxLinks)
}

// makePath opens, O_PATH, what is at a path below root, and makes it, a directory or a file, where it is missing. Others may
// change the directories on the way (a volume is shared with them): whatever they put there, nothing is opened for more than
// looking at it, and nothing is made outside of root.
func makePath(root int, p string, mode uint32, links int) (int, error) {
	var kind uint64
	if mode&unix.S_IFMT == unix.S_IFDIR {
		kind = unix.O_DIRECTORY
	}
	fd, err := resolve(root, p, unix.O_PATH|kind)
	if !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	dir, name := split(p)
	if name == "" || name == "." || name == ".." {
		return -1, err
	}
	parent, err := makePath(root, dir, unix.S_IFDIR|0o755, links)
	if err != nil {
		return -1, err
	}
	defer unix.Close(parent)
	if err := makeEntry(parent, name, mode); err != nil {
		return -1, fmt.Errorf("make %s: %w", p, err)
	}
	target, err := readlink(parent, name)
	if errors.Is(err, unix.EINVAL) { // not a link
		return entry(parent, name, kind)
	}
	if err != nil || links == 0 {
		return -1, fmt.Errorf("%s: %w", p, errors.Join(err, unix.ELOOP))
	}
	// A link that led nowhere: what it leads to is made.
	if !strings.HasPrefix(target, "/") {
		target = dir + "/" + target
	}
	return makePath(root, target, mode, links-1)
}

// makeEntry makes a directory or an empty file, unless there is something of that name.
func makeEntry(dir int, name string, mode uint32) (err error) {
	if mode&unix.S_IFMT == unix.S_IFDIR {
		err = unix.Mkdirat(dir, name, mode&^unix.S_IFMT)
	} else {
		err = unix.Mknodat(dir, name, mode, 0)
	}
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// split cuts a path before its last element. It changes nothing else: what ".." means depends on links.
func split(p string) (dir, name string) {
	p = strings.TrimRight(p, "/")
	i := strings.LastIndexByte(p, '/')
	return p[:i+1], p[i+1:]
}

func readlink(dir int, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, name, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// open opens for use what is found at a path below root, if fit says that it is what is expected. A container's author may have
// put anything there, and the mere opening of some devices, which the container's device rules don't keep from us, has
// effects.
func (l *Launcher) open(root int, p string, flags int, fit func(*unix.Stat_t, *unix.Statfs_t) bool) (int, error) {
	at, err := resolve(root, p, unix.O_PATH)
	if err != nil {
		return -1, err
	}
	defer unix.Close(at)
	var st unix.Stat_t
	var fs unix.Statfs_t
	if err := errors.Join(unix.Fstat(at, &st), unix.Fstatfs(at, &fs)); err != nil {
		return -1, err
	}
	if !fit(&st, &fs) {
		return -1, fmt.Errorf("%s: %w", p, errUnfit)
	}
	return unix.Openat(l.proc, fmt.Sprintf("self/fd/%d", at), flags|unix.O_CLOEXEC, 0)
}

// errUnfit says that something has the name, but isn't what it should be.
var errUnfit = errors.New("it isn't what it should be")

func isDevice(st *unix.Stat_t, major, minor uint32) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(major, minor)
}

func isNull(st *unix.Stat_t) bool { return isDevice(st, 1, 3) }

// devNull opens the container's /dev/null, or, if it has none, one of the host's that can be read and written but not changed:
// whoever has a file open may change its mode.
func (l *Launcher) devNull(root int) (int, error) {
	fd, err := l.open(root, os.DevNull, unix.O_RDWR, func(st *unix.Stat_t, _ *unix.Statfs_t) bool { return isNull(st) })
	if err == nil {
		return fd, nil
	}
	return unix.Openat(l.proc, fmt.Sprintf("self/fd/%d", l.null), unix.O_RDWR|unix.O_CLOEXEC, 0)
}
