package shim

import (
	"errors"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ended tells how a child ended.
type ended struct {
	code int // 128+n if signal n ended it
	at   time.Time
}

// reaper is the only one in this process that waits, and but for package launch the only one that forks: with several waiters one could take, or signal, what is
// another's. Everything about a pid happens under mu, so that a pid that it knows hasn't been reaped and can't be
// another process.
type reaper struct {
	mu      sync.Mutex
	waiting map[int]func(ended) // called once, without mu; mustn't block

	// A container is our grandchild until its runtime has exited, and may have ended by then. So while there are
	// starts, exits of processes that nobody waits for yet are kept.
	events uint64
	starts map[uint64]struct{} // the starts in flight, each by the value of events when it began
	strays map[int]stray

	jobs chan spawnJob

	oomScore, oomScoreChildren string // what to set when; "" if the kernel doesn't let us
}

type stray struct {
	ended
	event uint64
}

func newReaper() *reaper {
	return &reaper{
		waiting: map[int]func(ended){}, starts: map[uint64]struct{}{}, strays: map[int]stray{}, jobs: make(chan spawnJob),
	}
}

// run reaps whenever it is woken.
func (r *reaper) run(wake <-chan os.Signal) {
	for range wake {
		for r.reapOne() {
		}
	}
}

func (r *reaper) reapOne() bool {
	r.mu.Lock()
	var status syscall.WaitStatus
	pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
	if errors.Is(err, syscall.EINTR) {
		r.mu.Unlock()
		return true
	}
	if err != nil || pid <= 0 {
		r.mu.Unlock()
		return false
	}
	e := ended{code: status.ExitStatus(), at: time.Now()}
	if status.Signaled() {
		e.code = 128 + int(status.Signal())
	}
	tell, ok := r.waiting[pid]
	delete(r.waiting, pid)
	if !ok && len(r.starts) > 0 {
		r.events++
		r.strays[pid] = stray{ended: e, event: r.events}
	}
	r.mu.Unlock()
	if ok {
		tell(e)
	}
	return true
}

// begin announces a start, whose process adopt may then be called for until end.
func (r *reaper) begin() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events++
	r.starts[r.events] = struct{}{}
	return r.events
}

// end forgets a start and the strays that no other start can mean.
func (r *reaper) end(start uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.starts, start)
	oldest := r.events + 1
	for other := range r.starts {
		oldest = min(oldest, other)
	}
	for pid, s := range r.strays {
		if s.event < oldest {
			delete(r.strays, pid)
		}
	}
}

// adopt waits for a process that has become a child of ours; tell is called, perhaps at once, when it has ended.
func (r *reaper) adopt(start uint64, pid int, tell func(ended)) {
	r.mu.Lock()
	s, over := r.strays[pid]
	if over = over && s.event > start; over {
		delete(r.strays, pid)
	} else {
		r.waiting[pid] = tell
	}
	r.mu.Unlock()
	if over {
		tell(s.ended)
	}
}

// kill signals a child; it's no error if it has ended.
func (r *reaper) kill(pid int, sig syscall.Signal) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.waiting[pid]; !ok {
		return nil
	}
	if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return os.NewSyscallError("kill", err)
	}
	return nil
}

// open returns a pidfd of a child that hasn't been reaped.
func (r *reaper) open(pid int) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.waiting[pid]; !ok {
		return -1, os.NewSyscallError("pidfd_open", syscall.ESRCH)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	return fd, os.NewSyscallError("pidfd_open", err)
}

// killGroup kills a child and, if it leads a process group, as what OCI runtimes start does, all of that: the shell that
// an exec began would otherwise leave behind what it waits for.
func (r *reaper) killGroup(pid int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.waiting[pid]; !ok {
		return nil
	}
	target := pid
	if group, err := syscall.Getpgid(pid); err == nil && group == pid {
		target = -pid
	}
	if err := syscall.Kill(target, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return os.NewSyscallError("kill", err)
	}
	return nil
}

type spawnJob struct {
	argv  []string
	files [3]uintptr
	reply chan spawned
}

type spawned struct {
	pid  int
	done <-chan ended
	err  error
}

// spawn starts a program that dies with the shim.
func (r *reaper) spawn(argv []string, files [3]uintptr) (pid int, done <-chan ended, err error) {
	job := spawnJob{argv: argv, files: files, reply: make(chan spawned, 1)}
	r.jobs <- job
	res := <-job.reply
	return res.pid, res.done, res.err
}

// spawner forks, always on the same thread, as it is the thread's death that sends the signal named in Pdeathsig.
func (r *reaper) spawner() {
	runtime.LockOSThread()
	// NOTIFY_SOCKET, LISTEN_FDS and the like are errand's, not for a runtime to see.
	env := []string{"PATH=" + os.Getenv("PATH")}
	for job := range r.jobs {
		done := make(chan ended, 1)
		r.mu.Lock()
		setOOMScore(r.oomScoreChildren)
		pid, err := syscall.ForkExec(job.argv[0], job.argv, &syscall.ProcAttr{
			Env: env, Files: job.files[:], Sys: &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL},
		})
		setOOMScore(r.oomScore)
		if err == nil {
			r.waiting[pid] = func(e ended) { done <- e }
		}
		r.mu.Unlock()
		job.reply <- spawned{pid: pid, done: done, err: err}
	}
}

// protect makes the shim one of the last that the kernel kills for memory, where that is permitted. Children start with
// the score that the shim itself was started with: a container mustn't be protected because its spec says nothing.
func (r *reaper) protect() {
	inherited, err := os.ReadFile(oomScoreFile)
	if err != nil {
		return
	}
	score := strings.TrimSpace(string(inherited))
	if n, err := strconv.Atoi(score); err != nil || n <= shimOOMScore {
		return
	}
	if setOOMScore(strconv.Itoa(shimOOMScore)) {
		r.oomScore, r.oomScoreChildren = strconv.Itoa(shimOOMScore), score
	}
}

const (
	oomScoreFile = "/proc/self/oom_score_adj"
	shimOOMScore = -998 // as other container shims; below only what can't be killed at all
)

func setOOMScore(score string) bool {
	if score == "" {
		return false
	}
	fd, err := unix.Open(oomScoreFile, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(score))
	return err == nil
}
