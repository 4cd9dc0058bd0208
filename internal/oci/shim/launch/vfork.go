//go:build amd64 || arm64

package launch

import (
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// cloneArgs is struct clone_args, up to the field cgroup (Linux 5.7).
type cloneArgs struct {
	flags, pidFD uint64
	_, _         uint64 // child_tid, parent_tid
	exitSignal   uint64
	_, _, _      uint64 // stack, stack_size, tls
	_, _         uint64 // set_tid, set_tid_size
	cgroup       uint64
}

// flagsOfBirth of every child: it borrows the shim's memory until its execve, during which this thread stands still, and none of
// the shim's signal handlers, which would run in that memory.
// CLONE_VFORK it must be: an oom_score_adj would otherwise be that of all who share the memory.
const flagsOfBirth = unix.CLONE_VM | unix.CLONE_VFORK | unix.CLONE_CLEAR_SIGHAND | unix.CLONE_PIDFD

// vfork is clone3 with CLONE_VM and CLONE_VFORK: it returns twice, first in the child, with pid 0.
//
//go:noescape
func vfork(args *cloneArgs, size uintptr) (pid, errno uintptr)

// How long a birth may wait depends on others: on a network file system that the command is on, or on processes in the
// container, which may stop or freeze the child. So it counts as a system call that blocks: the scheduler and the garbage
// collector go on without this thread.
//
//go:linkname entersyscall runtime.entersyscall
func entersyscall()

//go:linkname exitsyscall runtime.exitsyscall
func exitsyscall()

// start makes a child that runs the program, and returns its pid once it has executed the program's last call, an execve, or
// failed: then failure tells in which call. A child that takes longer than the limit is killed. Errors: clone3's, and ETIMEDOUT.
func (p *program) start(args *cloneArgs, limit time.Duration) (pid int, err error) {
	const unknown = -1
	// The kernel writes it before the child's first step.
	pidFD := new(atomic.Int32)
	pidFD.Store(unknown)
	late := new(atomic.Bool)
	args.exitSignal = uint64(unix.SIGCHLD)
	args.flags |= flagsOfBirth
	args.pidFD = uint64(uintptr(unsafe.Pointer(pidFD)))
	killed := make(chan struct{})
	timer := time.AfterFunc(limit, func() {
		defer close(killed)
		if fd := pidFD.Load(); fd != unknown {
			late.Store(unix.PidfdSendSignal(int(fd), unix.SIGKILL, nil, 0) == nil)
		}
	})
	child, errno := p.birth(args)
	if !timer.Stop() {
		<-killed
	}
	runtime.KeepAlive(p)
	if errno != 0 {
		return 0, errno // pidFD may be set, but to none that is ours
	}
	_ = unix.Close(int(pidFD.Load()))
	if late.Load() {
		return 0, unix.ETIMEDOUT
	}
	return int(child), nil
}

// birth is where this thread waits.
//
//go:noinline
//go:norace
//go:nosplit
func (p *program) birth(args *cloneArgs) (pid uintptr, errno syscall.Errno) {
	entersyscall()
	// No signal may be handled while two processes are on one stack.
	all, old := ^uint64(0), uint64(0)
	_, _, errno = syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&old)), sigsetSize, 0, 0)
	if errno == 0 {
		pid, errno = p.bear(args)
		syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&old)), 0, sigsetSize, 0, 0)
	}
	exitsyscall()
	return pid, errno
}

const sigsetSize = 8

const portedHere = true

// bear is the frame that parent and child share. The parent must leave it at once, and read nothing from it; the child never
// leaves it. Nothing that the child does may grow the stack, allocate, or meet the scheduler.
//
//go:noinline
//go:norace
//go:nosplit
func (p *program) bear(args *cloneArgs) (pid uintptr, errno syscall.Errno) {
	child, e := vfork(args, unsafe.Sizeof(*args))
	if child != 0 || e != 0 {
		return child, syscall.Errno(e)
	}
	p.run()
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, exitOfFailedChild, 0, 0)
	}
}

const exitOfFailedChild = 127

// run makes the calls in the child, until an execve succeeds or a call fails that mustn't.
//
//go:norace
//go:nosplit
func (p *program) run() {
	for i := 0; i < len(p.calls); i++ {
		c := &p.calls[i]
		if c.unless != 0 && p.results[c.unless] >= 0 {
			continue
		}
		for j := 0; j < len(c.args); j++ {
			if c.results&(1<<j) != 0 {
				c.args[j] = uintptr(p.results[c.args[j]])
			}
		}
		r, _, errno := syscall.RawSyscall6(c.nr, c.args[0], c.args[1], c.args[2], c.args[3], c.args[4], c.args[5])
		p.results[i+1] = int(r)
		if errno == 0 {
			continue
		}
		p.results[i+1] = -int(errno)
		switch {
		case c.may:
		case c.skip > 0 && (errno == syscall.ENOENT || errno == syscall.ENOTDIR):
			i += c.skip
		default:
			p.failed, p.errno = i+1, errno
			return
		}
	}
	p.failed = nothingExecuted
}
