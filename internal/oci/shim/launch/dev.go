package launch

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"

	"golang.org/x/sys/unix"

	"errand.dev/errand/internal/oci/shimapi"
)

// usualDevices are those that every container has (OCI runtime specification, "Default Devices"). Its /dev/console and
// /dev/ptmx are its terminal's.
var usualDevices = []shimapi.Device{
	{Path: "/dev/null", Mode: unix.S_IFCHR | 0o666, Dev: unix.Mkdev(1, 3)},
	{Path: "/dev/zero", Mode: unix.S_IFCHR | 0o666, Dev: unix.Mkdev(1, 5)},
	{Path: "/dev/full", Mode: unix.S_IFCHR | 0o666, Dev: unix.Mkdev(1, 7)},
	{Path: "/dev/tty", Mode: unix.S_IFCHR | 0o666, Dev: unix.Mkdev(5, 0)},
	{Path: "/dev/random", Mode: unix.S_IFCHR | 0o666, Dev: unix.Mkdev(1, 8)},
	{Path: "/dev/urandom", Mode: unix.S_IFCHR | 0o666, Dev: unix.Mkdev(1, 9)},
}

var usualLinks = [][2]string{
	{"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"}, {"/proc/self/fd/2", "stderr"},
	{kcore, "core"}, {"pts/ptmx", "ptmx"},
}

const kcore = "/proc/kcore"

// makeDevices fills a /dev of the container's own, and opens its terminal.
func (c *container) makeDevices() error {
	dev := c.mountOf("/dev")
	if dev != nil && dev.Bind == "" {
		if err := c.fillDev(); err != nil {
			return err
		}
	}
	if c.Terminal {
		if err := c.openTerminal(); err != nil {
			return err
		}
	}
	return nil
}

func (c *container) fillDev() error {
	for _, d := range append(usualDevices[:len(usualDevices):len(usualDevices)], c.Devices...) {
		if err := c.makeDevice(d); err != nil {
			return fmt.Errorf("%s: %w", d.Path, err)
		}
	}
	dev, err := c.makeDir("/dev", 0o755)
	if err != nil {
		return err
	}
	defer unix.Close(dev)
	for _, link := range usualLinks {
		if link[0] == kcore && c.noKcore {
			continue
		}
		if err := unix.Symlinkat(link[0], dev, link[1]); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("symlink /dev/%s: %w", link[1], err)
		}
	}
	return nil
}

func (c *container) makeDevice(d shimapi.Device) error {
	dir, err := c.makeDir(path.Dir(path.Clean(d.Path)), 0o755)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	name := path.Base(d.Path)
	err = unix.Mknodat(dir, name, d.Mode, int(d.Dev))
	if errors.Is(err, unix.EEXIST) {
		return nil // one of the mounts
	}
	if err != nil {
		return os.NewSyscallError("mknod", err)
	}
	if d.UID == 0 && d.GID == 0 {
		return nil
	}
	return os.NewSyscallError("chown", unix.Fchownat(dir, name, int(d.UID), int(d.GID), unix.AT_SYMLINK_NOFOLLOW))
}

// terminal is a pseudo-terminal in a container.
type terminal struct{ master, slave int }

func (t *terminal) close() {
	if t == nil {
		return
	}
	for _, fd := range []int{t.master, t.slave} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

// openTerminal makes a terminal in the container's own devpts, and its /dev/console.
func (c *container) openTerminal() (err error) {
	var number int
	if c.tty, number, err = c.newTerminal(c.root, &c.Process); err != nil {
		return err
	}
	pts, err := c.lookup("/dev/pts")
	if err != nil {
		return err
	}
	defer unix.Close(pts)
	slave, err := unix.OpenTree(pts, strconv.Itoa(number), unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return fmt.Errorf("mount the terminal: %w", err)
	}
	defer unix.Close(slave)
	if err := c.tty.check(slave); err != nil {
		return err
	}
	at, err := c.makeFile("/dev/console")
	if err != nil {
		return fmt.Errorf("/dev/console: %w", err)
	}
	defer unix.Close(at)
	return attach(slave, at, "")
}

const devptsMagic = 0x1cd1 // linux/magic.h

// newTerminal opens a new terminal in the devpts at /dev/pts below root, made fit for the process. It goes by what the files are
// rather than by their names, which in a running container may be anything.
func (l *Launcher) newTerminal(root int, p *shimapi.Process) (t *terminal, number int, err error) {
	t = &terminal{master: -1, slave: -1}
	defer func() {
		if err != nil {
			t.close()
			t = nil
		}
	}()
	t.master, err = l.open(root, "/dev/pts/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, func(st *unix.Stat_t, fs *unix.Statfs_t) bool {
		return fs.Type == devptsMagic && isDevice(st, 5, 2)
	})
	if err != nil {
		return t, 0, fmt.Errorf("open a terminal multiplexer: %w", err)
	}
	if err := unix.IoctlSetPointerInt(t.master, unix.TIOCSPTLCK, 0); err != nil {
		return t, 0, fmt.Errorf("unlock the terminal: %w", err)
	}
	if number, err = unix.IoctlGetInt(t.master, unix.TIOCGPTN); err != nil {
		return t, 0, fmt.Errorf("number of the terminal: %w", err)
	}
	if t.slave, err = peer(t.master); err != nil {
		return t, 0, fmt.Errorf("open the terminal's other end: %w", err)
	}
	return t, number, t.fit(p)
}

// peer opens the slave of a terminal, whatever is at its path.
func peer(master int) (int, error) {
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

// check says whether what was found at the terminal's path is the terminal.
func (t *terminal) check(fd int) error {
	var found, own unix.Stat_t
	if err := errors.Join(unix.Fstat(fd, &found), unix.Fstat(t.slave, &own)); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if found.Dev != own.Dev || found.Ino != own.Ino || found.Rdev != own.Rdev {
		return fmt.Errorf("the terminal's path: %w", errUnfit)
	}
	return nil
}

func (t *terminal) fit(p *shimapi.Process) error {
	if p.Rows > 0 && p.Columns > 0 {
		if err := unix.IoctlSetWinsize(t.master, unix.TIOCSWINSZ, &unix.Winsize{Row: p.Rows, Col: p.Columns}); err != nil {
			return fmt.Errorf("size of the terminal: %w", err)
		}
	}
	if p.UID == 0 {
		return nil
	}
	return os.NewSyscallError("fchown", unix.Fchown(t.slave, int(p.UID), -1))
}
