package launch

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"errand.dev/errand/internal/oci/shim/cgroup"
	"errand.dev/errand/internal/oci/shimapi"
)

// child is the program of a process that is being started.
type child struct {
	*program
	launcher *Launcher
	root     int // its root directory
	process  *shimapi.Process
	seccomp  *Filter
	files    [3]int
	tty      *terminal
	cgroups  *cgroup.Membership
	inside   func() // adds what the process does first, once in its cgroups; may be nil
	closing  []int

	tries result // the first of the execve calls
}

// birth starts the container's first process on this thread.
func (c *container) birth() (Process, error) {
	c.Process.Env = c.withHome(c.root, c.Process.Env, c.Process.UID)
	b := &child{
		program: &program{}, launcher: c.Launcher, root: c.root, process: &c.Process, seccomp: c.Seccomp, files: c.Files, tty: c.tty,
		cgroups: c.Cgroups,
	}
	b.inside = func() { c.addMounts(b.program) }
	pid, err := b.start(unix.CLONE_NEWPID)
	if err != nil {
		return Process{}, err
	}
	p := Process{Pid: pid, Terminal: -1}
	if c.tty != nil {
		p.Terminal, c.tty.master = c.tty.master, -1
	}
	return p, nil
}

// start writes the program and has it run by a new child.
func (b *child) start(flags uint64) (pid int, err error) {
	defer b.close()
	if err := b.write(); err != nil {
		return 0, failed(err)
	}
	args := &cloneArgs{flags: flags}
	if b.cgroups.V2 >= 0 {
		args.flags |= unix.CLONE_INTO_CGROUP
		args.cgroup = uint64(b.cgroups.V2)
	}
	b.seal()
	pid, err = b.program.start(args, b.launcher.patience)
	if errors.Is(err, unix.ETIMEDOUT) {
		return 0, failed(fmt.Errorf("the new process hasn't come to execute its command in %v and was killed", b.launcher.patience))
	}
	if err != nil {
		return 0, failed(fmt.Errorf("clone3: %w", err))
	}
	return pid, b.outcome()
}

func (b *child) close() {
	for _, fd := range b.closing {
		_ = unix.Close(fd)
	}
}

// write puts the program together, in the order that the package comment gives the reasons for.
func (b *child) write() error {
	if err := b.check(); err != nil {
		return err
	}
	none := new(uint64)
	b.add("unblock signals", unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, pin(b.program, none), 0, sigsetBytes)
	b.add("setsid", unix.SYS_SETSID)
	for _, g := range b.cgroups.V1 {
		b.program.write("enter the cgroup "+g.Name, g.Tasks, "0")
	}
	b.isolate()
	if b.inside != nil {
		b.inside()
	}
	if err := b.addStdio(); err != nil {
		return err
	}
	b.addAttributes()
	b.add("close descriptors", unix.SYS_CLOSE_RANGE, 3, uintptr(^uint32(0)), 0)
	b.addRights()
	b.addExec()
	return nil
}

const sigsetBytes = 8

// isolate leaves behind what is inherited from errand and whoever started it: keys, which aren't for a container to see, and the
// processors that errand may be bound to (the container's are those of its cgroup).
func (b *child) isolate() {
	b.add("join a session keyring of its own", unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0)
	b.last().may = true // a kernel without keys
	all := &unix.CPUSet{}
	for i := range all {
		all[i] = ^all[i]
	}
	b.add("reset the CPU affinity", unix.SYS_SCHED_SETAFFINITY, 0, int(unsafe.Sizeof(*all)), pin(b.program, all))
	b.last().may = true
}

// check refuses what C strings can't hold.
func (b *child) check() error {
	p := b.process
	if len(p.Args) == 0 {
		return startFailed("no command specified")
	}
	for _, list := range [][]string{p.Args, p.Env, {p.Cwd, p.AppArmor}} {
		for _, s := range list {
			if strings.ContainsRune(s, 0) {
				return startFailed("%q contains a NUL character", s)
			}
		}
	}
	return nil
}

// addStdio makes the files, or the terminal, descriptors 0 to 2. They belong to the process's user, so that it can open them
// again by /dev/stdout.
func (b *child) addStdio() error {
	files := b.files
	if b.tty != nil {
		files = [3]int{b.tty.slave, b.tty.slave, b.tty.slave}
		b.add("take the terminal", unix.SYS_IOCTL, b.tty.slave, unix.TIOCSCTTY, 0)
	}
	null := -1
	for i, fd := range files {
		own, err := b.own(fd)
		if err != nil {
			return err
		}
		if !own && null < 0 {
			if null, err = b.launcher.devNull(b.root); err != nil {
				return fmt.Errorf("open %s: %w", os.DevNull, err)
			}
			b.closing = append(b.closing, null)
		}
		if !own {
			fd = null
		}
		b.add("dup3", unix.SYS_DUP3, fd, i, 0)
	}
	return nil
}

// own makes a file the process's own. It returns false for none, and for a /dev/null, which is the host's: the container has its own.
func (b *child) own(fd int) (bool, error) {
	if fd < 0 {
		return false, nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return false, os.NewSyscallError("fstat", err)
	}
	if isNull(&st) {
		return false, nil
	}
	if b.tty != nil || st.Uid == b.process.UID {
		return true, nil
	}
	if err := unix.Fchown(fd, int(b.process.UID), -1); err != nil && !errors.Is(err, unix.EROFS) && !errors.Is(err, unix.EPERM) {
		return false, fmt.Errorf("give the process's files to its user: %w", err)
	}
	return true, nil
}

// addAttributes sets what the kernel takes through the host's /proc.
func (b *child) addAttributes() {
	p := b.process
	score := b.launcher.oomScore
	if p.OOMScoreAdj != nil {
		score = strconv.Itoa(*p.OOMScoreAdj)
	}
	if score != "" {
		fd := b.add("open oom_score_adj", unix.SYS_OPENAT, b.launcher.proc, "self/oom_score_adj", unix.O_WRONLY|unix.O_CLOEXEC, 0)
		b.program.write("set oom_score_adj to "+score, fd, score)
	}
	if p.AppArmor != "" {
		fd := b.add("open the AppArmor attribute", unix.SYS_OPENAT, b.launcher.proc, "self/attr/apparmor/exec", unix.O_WRONLY|unix.O_CLOEXEC, 0)
		b.program.write("apply the AppArmor profile "+p.AppArmor, fd, "exec "+p.AppArmor)
	}
	limits := p.Rlimits
	if l := b.launcher.openFiles; l != nil {
		limits = append([]shimapi.Rlimit{*l}, limits...)
	}
	for _, r := range limits {
		limit := &unix.Rlimit{Cur: r.Soft, Max: r.Hard}
		b.add(fmt.Sprintf("set rlimit %d", r.Resource), unix.SYS_PRLIMIT64, 0, r.Resource, pin(b.program, limit), 0)
	}
	b.add("umask", unix.SYS_UMASK, int(p.Umask))
}

// addRights makes the process what it shall be: its capabilities, user and filter. The filter comes as late as it can: without
// no_new_privs it takes a capability that is given up then.
func (b *child) addRights() {
	p := b.process
	for c := range b.launcher.lastCap + 1 {
		if p.Bounding&(1<<c) == 0 {
			b.add("drop a capability from the bounding set", unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		}
	}
	if !p.NoNewPrivs {
		b.addSeccomp()
	}
	// The working directory may be out of the user's reach, or, on a network file system, out of root's.
	b.add(b.chdir(), unix.SYS_CHDIR, p.Cwd)
	b.last().may = true
	chdir := len(b.calls)
	b.addUser()
	b.add(b.chdir(), unix.SYS_CHDIR, p.Cwd)
	b.last().unless = chdir
	if p.NoNewPrivs {
		b.add("no_new_privs", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
		b.addSeccomp()
	}
}

func (b *child) chdir() string {
	return fmt.Sprintf("chdir to cwd (%q) set in config.json failed", b.process.Cwd)
}

func (b *child) addUser() {
	p := b.process
	b.add("keep capabilities", unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1, 0, 0, 0)
	b.add("setgroups", unix.SYS_SETGROUPS, len(p.Groups), pinAll(b.program, append([]uint32(nil), p.Groups...)))
	b.add("setresgid", unix.SYS_SETRESGID, int(p.GID), int(p.GID), int(p.GID))
	b.add("setresuid", unix.SYS_SETRESUID, int(p.UID), int(p.UID), int(p.UID))
	b.add("keep capabilities no more", unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 0, 0, 0, 0)
	header := &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := &[2]unix.CapUserData{}
	for i := range data {
		shift := 32 * i
		data[i] = unix.CapUserData{
			Effective: uint32(p.Effective >> shift), Permitted: uint32(p.Permitted >> shift), Inheritable: uint32(p.Inheritable >> shift),
		}
	}
	b.add("capset", unix.SYS_CAPSET, pin(b.program, header), pin(b.program, data))
	b.add("clear ambient capabilities", unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
	for c := range b.launcher.lastCap + 1 {
		if p.Ambient&(1<<c) != 0 {
			b.add("raise an ambient capability", unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, c, 0, 0)
		}
	}
	// The change of user has set this to fs.suid_dumpable, for the shim as well; somebody may have changed that since Supported looked.
	b.add("stay not dumpable", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
}

// addSeccomp loads the filter.
func (b *child) addSeccomp() {
	if f := b.seccomp; f != nil {
		b.add("load the seccomp filter", unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, int(f.flags), pin(b.program, &f.prog))
	}
}

// addExec tries the places where the command may be, as execvp does.
func (b *child) addExec() {
	argv, envp := b.texts(b.process.Args), b.texts(b.process.Env)
	for _, p := range candidates(b.process) {
		r := b.add("execve", unix.SYS_EXECVE, p, argv, envp)
		b.last().may = true
		if b.tries == 0 {
			b.tries = r
		}
	}
}

// candidates are the paths of the command. Relative places in $PATH don't count.
func candidates(p *shimapi.Process) []string {
	if strings.Contains(p.Args[0], "/") {
		return p.Args[:1]
	}
	var found []string
	for _, e := range p.Env {
		list, ok := strings.CutPrefix(e, "PATH=")
		if !ok {
			continue
		}
		found = nil
		for _, dir := range strings.Split(list, ":") {
			if path.IsAbs(dir) && p.Args[0] != "" {
				found = append(found, path.Join(dir, p.Args[0]))
			}
		}
	}
	return found
}

// outcome tells what became of the program, nil if the container runs.
func (b *child) outcome() error {
	if b.failed != nothingExecuted {
		err := b.failure()
		var c *callError
		if errors.As(err, &c) && c.what == b.chdir() {
			return startFailed("%v", err)
		}
		if err != nil {
			return failed(fmt.Errorf("unable to start container process: %w", err))
		}
		return nil
	}
	command := b.process.Args[0]
	errno := syscall.ENOENT
	if b.tries != 0 {
		for _, r := range b.results[b.tries:] {
			if e := syscall.Errno(-r); e != syscall.ENOENT && e != syscall.ENOTDIR && (errno == syscall.ENOENT || errno == syscall.EACCES) {
				errno = e
			}
		}
	}
	return execFailed(command, errno)
}

// execFailed says it in the words that users know from other runtimes.
func execFailed(command string, errno syscall.Errno) error {
	bare := !strings.Contains(command, "/")
	switch {
	case bare && (errno == syscall.ENOENT || errno == syscall.EACCES):
		return startFailed("exec: %q: executable file not found in $PATH", command)
	case errno == syscall.ENOENT:
		return startFailed("exec: %q: stat %s: no such file or directory", command, command)
	}
	return startFailed("exec: %q: %v", command, errno)
}
