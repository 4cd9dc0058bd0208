package shim

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"errand.dev/errand/internal/oci/shim/output"
	"errand.dev/errand/internal/oci/shimapi"
)

// startContainer runs a container. On failure nothing is left of it.
func (s *Shim) startContainer(run shimapi.Run) (*shimapi.Started, error) {
	if err := validRun(&run); err != nil {
		return nil, err
	}
	c := newContainer(run, s.path("containers", run.ID))
	s.goNative(c)
	if err := s.enter(c); err != nil {
		return nil, err
	}
	defer close(c.done.started)
	res, err := s.launch(c)
	if err != nil {
		s.abandon(c)
		return nil, err
	}
	return res, nil
}

// enter takes the container's ID.
func (s *Shim) enter(c *container) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return errorf(shimapi.CodeDraining, "errand-shim is being drained and takes no new containers")
	}
	if _, ok := s.containers[c.run.ID]; ok {
		return errorf(shimapi.CodeExists, "container %s exists", c.run.ID)
	}
	s.containers[c.run.ID] = c
	s.active++
	return nil
}

// abandon removes what a failed start has left.
func (s *Shim) abandon(c *container) {
	if c.out != nil {
		c.out.Close()
	}
	err := s.cleanUp(c)
	if err := errors.Join(err, forget(c.dir)); err != nil {
		s.log.Printf("after the failed start: %v", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c.closeInput()
	delete(s.containers, c.run.ID)
	s.leave()
}

func (s *Shim) launch(c *container) (*shimapi.Started, error) {
	// What a crash of the machine or of another errand may have left there would count as ours.
	if err := errors.Join(forget(c.dir), os.MkdirAll(c.dir, 0o700), save(c.dir, runFile, c.run)); err != nil {
		return nil, err
	}
	pipes, err := s.openStdio(c)
	if err != nil {
		return nil, err
	}
	defer pipes.close()
	start := s.reaper.begin()
	defer s.reaper.end(start)
	begin := s.launchByRuntime
	if c.native != nil {
		begin = s.launchNative
	}
	began := time.Now()
	pid, err := begin(c, pipes)
	if err != nil {
		return nil, err
	}
	c.run.Launch = nil
	now := time.Now()
	res := started{Started: shimapi.Started{Pid: pid, At: now, LaunchNanos: int64(now.Sub(began))}, Birth: birth(pid)}
	// From here on the container runs: it ends by finish, whatever happens.
	err = errors.Join(save(c.dir, startedFile, res), s.connect(c, pipes))
	s.mu.Lock()
	c.pid, c.startedAt = pid, res.At
	keep := err == nil && !c.cancelled
	if keep {
		c.phase = running
	}
	s.mu.Unlock()
	if !keep {
		return nil, errors.Join(err, s.revoke(c, start))
	}
	s.reaper.adopt(start, pid, func(e ended) { go s.finish(c, e) })
	return &res.Started, nil
}

// launchByRuntime starts a container by one execution of its OCI runtime.
func (s *Shim) launchByRuntime(c *container, pipes *stdio) (pid int, err error) {
	if c.run.Handler.Path == "" {
		return 0, errorf(shimapi.CodeRuntime, "errand's own launcher doesn't work here (errand doctor says why), and there is no OCI runtime")
	}
	if err := s.execute(s.runCommand(c, pipes)); err != nil {
		return 0, err
	}
	if pid, err = readPid(c.dir); err != nil {
		return 0, err
	}
	_ = os.Remove(filepath.Join(c.dir, pidFile))
	if pipes.console != nil {
		pipes.master, err = pipes.console.master()
	}
	if err != nil {
		_ = killBorn(pid, birth(pid), patience)
	}
	return pid, err
}

// revoke ends a container that has been started but can't be kept.
func (s *Shim) revoke(c *container, start uint64) error {
	over := make(chan struct{})
	s.reaper.adopt(start, c.pid, func(ended) { close(over) })
	if err := s.killContainer(c); err != nil {
		return err
	}
	<-over
	return errorf(shimapi.CodeRuntime, "container %s was deleted or failed while it was started", c.run.ID)
}

func (s *Shim) runCommand(c *container, pipes *stdio) command {
	args := []string{"--detach", "--pid-file", filepath.Join(c.dir, pidFile), "--bundle", c.run.Bundle}
	if pipes.console != nil {
		args = append(args, "--console-socket", pipes.console.path)
	}
	return command{
		handler: c.run.Handler, dir: c.dir, name: "run", args: append(args, c.run.ID), files: pipes.child,
		started: func(pid int) { s.starting(c, pid) },
	}
}

// starting notes which process a Delete has to kill meanwhile.
func (s *Shim) starting(c *container, pid int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.runtime = pid
	if c.cancelled {
		_ = s.reaper.kill(pid, unix.SIGKILL)
	}
}

// stdio is what a container's first process gets, and our ends of it.
type stdio struct {
	console       *console // which a runtime leaves the terminal in
	master        int      // of the terminal, once the container has been started, -1 without
	child         [3]int   // -1 = /dev/null
	stdin         int
	stdout, errfd int
	log           *output.LogFile
}

func (s *Shim) openStdio(c *container) (p *stdio, err error) {
	p = &stdio{master: -1, child: [3]int{-1, -1, -1}, stdin: -1, stdout: -1, errfd: -1}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if c.run.LogPath != "" {
		if p.log, err = output.OpenLog(c.run.LogPath, output.LogLimits{MaxSize: c.run.LogMaxSize, MaxFiles: c.run.LogMaxFiles}); err != nil {
			return p, err
		}
	}
	if c.run.Terminal {
		if c.native == nil {
			p.console, err = newConsole(s.tempName("tty"))
		}
		return p, err
	}
	if c.run.Stdin {
		if p.child[0], p.stdin, err = pipe(); err != nil {
			return p, err
		}
		if err = unix.SetNonblock(p.stdin, true); err != nil {
			return p, err
		}
	}
	if p.stdout, p.child[1], err = pipe(); err != nil {
		return p, err
	}
	p.errfd, p.child[2], err = pipe()
	return p, err
}

// pipe returns its two ends, -1 each on failure.
func pipe() (r, w int, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return -1, -1, os.NewSyscallError("pipe2", err)
	}
	return fds[0], fds[1], nil
}

// connect begins to move the container's output. Not before its start has succeeded: a runtime that fails says so on
// the container's stderr too, which is not the container's word.
func (s *Shim) connect(c *container, p *stdio) (err error) {
	conf := output.Config{Stdout: p.stdout, Stderr: p.errfd, Log: p.log, MaxLine: c.run.LogMaxLine, Terminal: c.run.Terminal}
	stdin, master := p.stdin, -1
	if p.master >= 0 {
		if master, err = unix.FcntlInt(uintptr(p.master), unix.F_DUPFD_CLOEXEC, 3); err != nil {
			return err
		}
		conf.Stdout = p.master
	}
	p.master, p.stdin, p.stdout, p.errfd, p.log = -1, -1, -1, -1, nil // handed over
	out, err := s.pump.Open(conf)
	s.mu.Lock()
	defer s.mu.Unlock()
	c.out, c.stdin, c.master = out, stdin, master
	return err
}

// close closes the child's ends, and ours if they haven't been handed over.
func (p *stdio) close() {
	for _, fd := range append(p.child[:], p.master, p.stdin, p.stdout, p.errfd) {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
	if p.console != nil {
		p.console.close()
	}
	if p.log != nil {
		p.log.Close()
	}
}
