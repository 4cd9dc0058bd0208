package launch

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"errand.dev/errand/internal/oci/shim/cgroup"
	"errand.dev/errand/internal/oci/shimapi"
)

// Launcher makes containers. It may be used concurrently.
type Launcher struct {
	proc  int // the host's /proc, O_PATH
	null  int // a read-only mount of the host's /dev/null
	empty int // a mount namespace with nothing in it but rootDir and coverDir
	// oomScore is what a process starts with that says nothing of its own.
	oomScore string
	lastCap  int
	// openFiles is the RLIMIT_NOFILE of a process that says nothing of its own, nil for the caller's.
	openFiles *shimapi.Rlimit
	noKcore   bool          // the kernel has no /proc/kcore
	patience  time.Duration // with a new process, to its execve

	mu      sync.Mutex
	filters map[string]*Filter // by what they consist of
}

// birthTimeout is that of an OCI runtime's execution, and like it passes only if something hangs.
const birthTimeout = 2 * time.Minute

// The directories in the empty mount namespace: containers' roots are mounted at rootDir, and coverDir is what directories in containers
// are hidden by.
const (
	rootDir  = "/root"
	coverDir = "/empty"
)

// New prepares a Launcher, whose processes start with the given oom_score_adj unless they ask for another; "" leaves them the
// caller's. It leaves nothing in dir, which is any directory. Errors: Supported's.
func New(dir, oomScore string) (*Launcher, error) {
	if err := Supported(); err != nil {
		return nil, err
	}
	// See the package comment.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("become not dumpable: %w", err)
	}
	l := &Launcher{oomScore: oomScore, lastCap: lastCapability(), proc: -1, null: -1, empty: -1, patience: birthTimeout, filters: map[string]*Filter{}}
	_, err := os.Stat(kcore)
	l.noKcore = err != nil
	if l.proc, err = unix.Open("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("open /proc: %w", err)
	}
	if l.null, err = lookOnly(os.DevNull); err != nil {
		l.Close()
		return nil, err
	}
	onThread(func() { l.empty, err = emptyNamespace(l.proc, dir) })
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("make an empty mount namespace: %w", err)
	}
	return l, nil
}

// LimitOpenFiles gives processes that don't ask for another this soft limit of open files, if it isn't 0; the hard one is the
// caller's. It is to be called before any is started.
func (l *Launcher) LimitOpenFiles(soft uint64) error {
	var own unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &own); err != nil {
		return fmt.Errorf("limit of open files: %w", err)
	}
	if soft > 0 && soft <= own.Max {
		l.openFiles = &shimapi.Rlimit{Resource: unix.RLIMIT_NOFILE, Soft: soft, Hard: own.Max}
	}
	return nil
}

// Close gives back what New took.
func (l *Launcher) Close() {
	for _, fd := range []int{l.proc, l.null, l.empty} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

// onThread runs f on a thread that ends with it, so that f may change what the kernel keeps for each thread. The process's
// first thread can't end, and is passed by.
func onThread(f func()) {
	done := make(chan struct{})
	var run func()
	run = func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			defer close(done)
			f()
			return // locked: the runtime ends the thread
		}
		defer runtime.UnlockOSThread()
		go run()
		<-done
	}
	go run()
	<-done
}

// emptyNamespace makes a mount namespace that containers' are copied from. Copying the host's would cost more the more is mounted
// there, and with every pod more is.
func emptyNamespace(proc int, mountPoint string) (int, error) {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return -1, fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return -1, fmt.Errorf("make / private: %w", err)
	}
	if err := unix.Mount("tmpfs", mountPoint, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0555,size=0,nr_inodes=8"); err != nil {
		return -1, fmt.Errorf("mount a tmpfs: %w", err)
	}
	if err := enterRoot(mountPoint); err != nil {
		return -1, err
	}
	for _, dir := range []string{rootDir, coverDir} {
		if err := os.Mkdir(dir, 0o555); err != nil {
			return -1, err
		}
	}
	fd, err := unix.Openat(proc, "thread-self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open thread-self/ns/mnt: %w", err)
	}
	return fd, nil
}

// enterRoot makes the mount at dir this thread's root, and lets go of the old one.
func enterRoot(dir string) error {
	if err := unix.Chdir(dir); err != nil {
		return fmt.Errorf("chdir to the new root: %w", err)
	}
	// The old root comes to lie over the new one, and is taken away from there.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the old root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("chdir to /: %w", err)
	}
	return nil
}

// Request is what Start makes a container from.
type Request struct {
	*shimapi.Launch
	Seccomp *Filter // instead of the Launch's
	// Files are the first process's stdin, stdout and stderr, -1 for /dev/null. Not with Terminal.
	Files    [3]int
	Terminal bool
	Cgroups  *cgroup.Membership
}

// Process is one that was started.
type Process struct {
	Pid int
	// Terminal is the master of its terminal, -1 without one. It's the caller's.
	Terminal int
}

// Start makes a container and starts its first process. Errors: *shimapi.Error, of which CodeStart says that the
// container itself is to blame. On failure nothing is left; a child that failed is for the caller to reap, as any.
func (l *Launcher) Start(req Request) (p Process, err error) {
	onThread(func() { p, err = l.startHere(req) })
	return p, creating.explain(err)
}

// failed makes an error of err that says whose fault it is.
func failed(err error) error {
	var known *shimapi.Error
	if errors.As(err, &known) {
		return known
	}
	return &shimapi.Error{Code: shimapi.CodeRuntime, Message: err.Error()}
}

// deed is what has failed, in the words that users know from other runtimes.
type deed struct{ container, machine string }

// The deeds: what comes before the message where the container is to blame, and where it isn't.
var (
	creating = deed{"OCI runtime create failed: unable to start container process: error during container init: ", "create failed: "}
	execing  = deed{"OCI runtime exec failed: exec failed: unable to start container process: ", "exec failed: "}
)

// explain puts one of failed's errors into those words.
func (d deed) explain(err error) error {
	var known *shimapi.Error
	if !errors.As(err, &known) {
		return err
	}
	words := d.machine
	if known.Code == shimapi.CodeStart {
		words = d.container
	}
	return &shimapi.Error{Code: known.Code, Message: words + known.Message}
}
