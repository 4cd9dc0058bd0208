//go:build amd64 || arm64

package launch

import (
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// cloneArgs is struct clone_args, up to the field cgroup (Linux 5.7).
type cloneArgs struct {
	flags, pidFD, childTID, parentTID, exitSignal uint64
	stack, stackSize, tls, setTID, setTIDSize     uint64
	cgroup                                        uint64
}

// flagsOfBirth of every child: it borrows the shim's memory until its execve, during which this thread stands still, and none of
// the shim's signal handlers, which would run in that memory.
const flagsOfBirth = unix.CLONE_VM | unix.CLONE_VFORK | unix.CLONE_CLEAR_SIGHAND

// vfork is clone3 with CLONE_VM and CLONE_VFORK: it returns twice, first in the child, with pid 0.
//
//go:noescape
func vfork(args *cloneArgs, size uintptr) (pid, errno uintptr)

// start makes a child that runs the program, and returns its pid once it has executed the program's last call, an execve, or
// failed: then failure tells in which call.
func (p *program) start(args *cloneArgs) (pid int, err error) {
	args.exitSignal = uint64(unix.SIGCHLD)
	args.flags |= flagsOfBirth
	// No signal may be handled while two processes are on one stack.
	all, old := ^uint64(0), uint64(0)
	if _, _, errno := syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&old)), sigsetSize, 0, 0); errno != 0 {
		return 0, errno
	}
	child, errno := p.bear(args)
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&old)), 0, sigsetSize, 0, 0)
	runtime.KeepAlive(p)
	if errno != 0 {
		return 0, errno
	}
	return int(child), nil
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
