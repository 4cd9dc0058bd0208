package launch

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"errand.dev/errand/internal/oci/shimapi"
)

// container is one that is being put together on a thread of its own.
type container struct {
	*Launcher
	Request
	open []int // descriptors to close once the start is over; the child's copies are closed by itself

	root    int     // its root directory, O_PATH, once entered
	sources sources // what comes from the host
	proc    *procMount
	cgroup2 *childMount
	tty     *terminal
}

// sources are detached copies of mounts on the host, taken before the thread leaves the host's mount namespace.
type sources struct {
	namespaces []namespace
	root       int
	binds      []int          // by the index of the mount, -1 for other kinds
	cgroups    map[int][]int  // by the index of the mount: those of the v1 cgroups
	covers     map[string]int // by the path to cover
	covered    []string       // directories to cover
}

// namespace is one to join.
type namespace struct {
	path     string
	kind, fd int
}

// startHere does all of Start on a thread that is given up afterwards.
func (l *Launcher) startHere(req Request) (Process, error) {
	c := &container{Launcher: l, Request: req, root: -1}
	defer c.close()
	steps := []struct {
		what string
		do   func() error
	}{
		{"take the host's files", c.takeSources},
		{"make a mount namespace", c.leaveHost},
		{"join namespaces", c.join},
		{"enter the root file system", c.enter},
		{"mount", c.mountAll},
		{"make devices", c.makeDevices},
		{"hide paths", c.coverPaths},
		{"make the working directory", c.makeCwd},
		{"make the root read-only", c.sealRoot},
	}
	for _, s := range steps {
		if err := s.do(); err != nil {
			return Process{}, failed(fmt.Errorf("%s: %w", s.what, err))
		}
	}
	return c.birth()
}

func (c *container) close() {
	for _, fd := range c.open {
		_ = unix.Close(fd)
	}
	c.tty.close()
}

// hold has a descriptor closed in the end.
func (c *container) hold(fd int) int {
	c.open = append(c.open, fd)
	return fd
}

// takeSources copies, detached, all that comes from the host.
func (c *container) takeSources() (err error) {
	s := &c.sources
	if s.root, err = c.detached(c.Root, true); err != nil {
		return err
	}
	for _, ns := range c.Join {
		fd, err := unix.Open(ns.Path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open the namespace %s: %w", ns.Path, err)
		}
		s.namespaces = append(s.namespaces, namespace{path: ns.Path, kind: ns.Type, fd: c.hold(fd)})
	}
	s.cgroups, s.covers = map[int][]int{}, map[string]int{}
	for i, m := range c.Mounts {
		fd := -1
		switch {
		case m.Bind != "":
			fd, err = c.detached(m.Bind, m.Recursive)
		case m.Type == "cgroup" && len(c.Cgroups.V1) > 0:
			s.cgroups[i], err = c.takeCgroups()
		case m.Type == "cgroup" && !c.CgroupNamespace:
			fd, err = c.copied(c.Cgroups.V2)
		}
		if err != nil {
			return err
		}
		s.binds = append(s.binds, fd)
	}
	return c.takeCovers()
}

// detached copies a mount of the host's, with its propagation: it is to be set before something is mounted there.
func (c *container) detached(path string, recursive bool) (int, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, flags)
	if err != nil {
		return -1, fmt.Errorf("mount %s: %w", path, err)
	}
	return c.hold(fd), nil
}

// copied is detached for a directory that is open.
func (c *container) copied(dir int) (int, error) {
	fd, err := unix.OpenTree(dir, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return -1, fmt.Errorf("mount the container's cgroup: %w", err)
	}
	return c.hold(fd), nil
}

func (c *container) takeCgroups() (fds []int, err error) {
	for _, g := range c.Cgroups.V1 {
		fd, err := c.detached(g.Dir, false)
		if err != nil {
			return nil, err
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

// takeCovers finds what each path to be hidden is covered by: files by the host's /dev/null, directories, once the host is left,
// by an empty one. Whether there is such a path below /proc or /sys, and of what kind, the host's tell: the kernel's part of them is
// the same everywhere.
func (c *container) takeCovers() error {
	for _, p := range c.Masked {
		var st unix.Stat_t
		err := unix.Stat(p, &st)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			c.sources.covered = append(c.sources.covered, p)
			continue
		}
		if err := c.takeCover(p, os.DevNull); err != nil {
			return err
		}
	}
	return nil
}

func (c *container) takeCover(p, cover string) error {
	fd, err := lookOnly(cover)
	if err != nil {
		return fmt.Errorf("cover of %s: %w", p, err)
	}
	c.sources.covers[p] = c.hold(fd)
	return nil
}

// lookOnly copies a mount, detached and read-only. The copy is private: as a peer of a shared one it would hand on to the host what
// is mounted over it.
func lookOnly(path string) (int, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("mount %s: %w", path, err)
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY, Propagation: unix.MS_PRIVATE}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("make a mount of %s read-only: %w", path, err)
	}
	return fd, nil
}

func below(p string, dirs ...string) bool {
	for _, d := range dirs {
		if strings.HasPrefix(p, d+"/") {
			return true
		}
	}
	return false
}

// leaveHost goes to a new mount namespace, which has nothing in it.
func (c *container) leaveHost() error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare the file system view: %w", err)
	}
	if err := unix.Setns(c.empty, unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("setns: %w", err)
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	unix.Umask(0)
	for _, p := range c.sources.covered {
		if err := c.takeCover(p, coverDir); err != nil {
			return err
		}
	}
	return nil
}

func (c *container) join() error {
	for _, ns := range c.sources.namespaces {
		if err := unix.Setns(ns.fd, ns.kind); err != nil {
			return fmt.Errorf("%s: %w", ns.path, err)
		}
	}
	if c.Unshare == 0 {
		return nil
	}
	return os.NewSyscallError("unshare", unix.Unshare(c.Unshare))
}

// enter makes the container's root this thread's.
func (c *container) enter() error {
	attr := unix.MountAttr{Propagation: unix.MS_PRIVATE}
	if err := unix.MountSetattr(c.sources.root, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
		return fmt.Errorf("make it private: %w", err)
	}
	if err := attach(c.sources.root, unix.AT_FDCWD, rootDir); err != nil {
		return err
	}
	if err := enterRoot(rootDir); err != nil {
		return err
	}
	fd, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	c.root = c.hold(fd)
	return nil
}

// coverPaths hides and protects what isn't below /proc, which only the child sees.
func (c *container) coverPaths() error {
	for _, p := range c.Masked {
		cover, ok := c.sources.covers[p]
		if !ok || below(p, "/proc") {
			continue
		}
		if err := c.over(p, cover); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
	}
	for _, p := range c.Readonly {
		if below(p, "/proc") {
			continue
		}
		if err := c.protect(p); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
	}
	return nil
}

// over mounts cover over a path that exists.
func (c *container) over(p string, cover int) error {
	at, err := c.lookup(p)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(at)
	return attach(cover, at, "")
}

// protect makes a path that exists read-only, with all below it.
func (c *container) protect(p string) error {
	at, err := c.lookup(p)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(at)
	copied, err := unix.OpenTree(at, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE)
	if err != nil {
		return err
	}
	defer unix.Close(copied)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(copied, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
		return err
	}
	return attach(copied, at, "")
}

func (c *container) makeCwd() error {
	fd, err := c.makeDir(c.Process.Cwd, 0o755)
	if errors.Is(err, unix.EROFS) || errors.Is(err, unix.ENOTDIR) {
		return nil // the child's chdir says what is wrong with it
	}
	if err == nil {
		err = unix.Close(fd)
	}
	return err
}

func (c *container) sealRoot() error {
	if !c.ReadonlyRoot {
		return nil
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	return unix.MountSetattr(c.root, "", unix.AT_EMPTY_PATH, &attr)
}

// attach mounts a detached mount on a path, or on at itself with "".
func attach(mount, at int, path string) error {
	flags := unix.MOVE_MOUNT_F_EMPTY_PATH
	if path == "" {
		flags |= unix.MOVE_MOUNT_T_EMPTY_PATH
	}
	if err := unix.MoveMount(mount, "", at, path, flags); err != nil {
		return fmt.Errorf("move_mount: %w", err)
	}
	return nil
}

// startFailed makes an error that the container is to blame for.
func startFailed(format string, args ...any) error {
	return &shimapi.Error{Code: shimapi.CodeStart, Message: fmt.Sprintf(format, args...)}
}
