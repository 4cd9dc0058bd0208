package shim

import (
	"syscall"

	"golang.org/x/sys/unix"

	"errand.dev/errand/internal/oci/shimapi"
)

// finish follows the end of a container's first process: the container has ended, with all that is in it and all that it
// wrote, before its exit is recorded, and its exit is recorded and its cgroups are gone before anybody hears of it.
func (s *Shim) finish(c *container, e ended) {
	// The kernel has killed the rest if the container had a PID namespace of its own. If not, it is for us to do.
	if err := s.tree.Kill(c.run.CgroupsPath, patience); err != nil {
		s.log.Printf("container %s has exited, but not all of it: %v", c.run.ID, err)
	}
	c.out.Finish()
	exit, err := c.record(e.code, e.at, s.tree.OOMKilled(c.run.CgroupsPath), "")
	if err != nil {
		// Announced all the same: a full disk mustn't hang the container. Should the shim die now, its successor will
		// report the container as lost.
		s.log.Print(err)
	}
	// Not left to Delete: a pod that has completed may stay for days, and would keep ten cgroups of each container.
	if err := s.cleanUp(c); err != nil {
		s.log.Print(err)
	}
	s.announce(c, exit)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leave()
}

// signal signals the first process of a container, or all, or that of an exec.
func (s *Shim) signal(req shimapi.Signal) error {
	if req.Signal < 1 || req.Signal > 64 {
		return errorf(shimapi.CodeInvalid, "signal %d: must be 1 to 64", req.Signal)
	}
	c, err := s.find(req.ID, running, exited, deleting)
	if err != nil {
		return err
	}
	sig := syscall.Signal(req.Signal)
	s.mu.Lock()
	pid, phase := c.pid, c.phase
	_, isExec := c.execs[req.Exec]
	s.mu.Unlock()
	switch {
	case req.Exec != 0 && isExec && sig == unix.SIGKILL:
		return s.reaper.killGroup(req.Exec)
	case req.Exec != 0 && isExec:
		return s.reaper.kill(req.Exec, sig)
	case req.Exec != 0 || phase != running:
		return nil
	case req.All && sig == unix.SIGKILL:
		return s.tree.Kill(c.run.CgroupsPath, patience)
	case req.All:
		s.tree.Signal(c.run.CgroupsPath, sig)
		return nil
	}
	return s.reaper.kill(pid, sig)
}

// delete kills the container if it starts or runs, and removes all that is left of it. It's no error if there is none.
func (s *Shim) delete(id string) error {
	for {
		s.mu.Lock()
		c := s.containers[id]
		if c == nil {
			s.mu.Unlock()
			return nil
		}
		var wait <-chan struct{}
		switch c.phase {
		case starting:
			c.cancelled = true
			if c.runtime != 0 {
				_ = s.reaper.kill(c.runtime, unix.SIGKILL)
			}
			wait = c.done.started
		case running:
			wait = c.done.exited
		case deleting:
			wait = c.done.deleted
		case exited:
			c.phase, c.done.deleted = deleting, make(chan struct{})
			s.mu.Unlock()
			return s.remove(c)
		}
		phase := c.phase
		s.mu.Unlock()
		var err error
		switch {
		case phase == running:
			err = s.killContainer(c)
		case phase == starting && c.native != nil:
			// Its process, in its cgroup from birth, may hang before its execve.
			err = s.tree.Kill(c.run.CgroupsPath, patience)
		}
		if err != nil {
			return err
		}
		<-wait
	}
}

// killContainer kills all processes of a running container. Its first one is killed by pid as well: a privileged container may
// have moved itself to another cgroup.
func (s *Shim) killContainer(c *container) error {
	if err := s.reaper.kill(c.pid, syscall.SIGKILL); err != nil {
		return err
	}
	return s.tree.Kill(c.run.CgroupsPath, patience)
}

// remove removes an exited container, of which the caller has taken hold by the phase deleting.
func (s *Shim) remove(c *container) error {
	if c.out != nil {
		c.out.Close()
	}
	var err error
	if !c.clean {
		err = s.cleanUp(c)
	}
	if err == nil {
		err = forget(c.dir)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		c.phase = exited // to be tried again
	} else {
		delete(s.containers, c.run.ID)
		s.exits = without(s.exits, c)
	}
	close(c.done.deleted)
	return err
}
