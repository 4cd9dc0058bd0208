package shim

import (
	"golang.org/x/sys/unix"

	"errand.dev/errand/internal/oci/shim/launch"
	"errand.dev/errand/internal/oci/shimapi"
)

// native is what is kept of a container that was launched without a runtime, for execs in it; the rest of its Launch is of no
// use once it runs, and would be held for as long as the container is.
type native struct {
	cgroupNamespace bool
	seccomp         *launch.Filter
}

// findLauncher is called once, by the first container that wants it.
func (s *Shim) findLauncher() *launch.Launcher {
	l, err := launch.New(s.cfg.Dir, s.reaper.oomScoreChildren)
	if err != nil {
		s.log.Printf("containers are started by OCI runtimes only: %v", err)
		return nil
	}
	if err := l.LimitOpenFiles(s.cfg.OpenFiles); err != nil {
		s.log.Print(err)
	}
	return l
}

// goNative decides who starts the container.
func (s *Shim) goNative(c *container) {
	if c.run.Launch != nil && s.launcher() != nil {
		c.native = &native{
			cgroupNamespace: c.run.Launch.CgroupNamespace,
			seccomp:         s.launcher().Filter(c.run.Launch.Seccomp, c.run.Launch.SeccompFlags),
		}
	}
}

// launchNative starts a container without a runtime.
func (s *Shim) launchNative(c *container, pipes *stdio) (pid int, err error) {
	groups, err := s.tree.Open(c.run.CgroupsPath)
	if err != nil {
		return 0, errorf(shimapi.CodeRuntime, "create failed: %v", err)
	}
	defer groups.Close()
	p, err := s.launcher().Start(launch.Request{
		Launch: c.run.Launch, Seccomp: c.native.seccomp, Files: pipes.child, Terminal: c.run.Terminal, Cgroups: groups,
	})
	if err != nil {
		return 0, err
	}
	pipes.master = p.Terminal
	return p.Pid, nil
}

// hasEnded tells whether a process has, which makes the kernel refuse its namespaces in various ways.
func hasEnded(pidFD int) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidFD), Events: unix.POLLIN}}, 0)
	return n > 0 && err == nil
}

// execNative starts a process in a container that was launched without a runtime.
func (s *Shim) execNative(c *container, req shimapi.Exec, stdio [3]int) (*process, error) {
	if req.Launch == nil {
		return nil, errorf(shimapi.CodeInvalid, "exec in %s: the process asks for what only a process of an OCI runtime can have", c.run.ID)
	}
	groups, err := s.tree.Open(c.run.CgroupsPath)
	if err != nil {
		return nil, s.execError(c, errorf(shimapi.CodeRuntime, "exec failed: %v", err))
	}
	defer groups.Close()
	s.mu.Lock()
	pid := c.pid
	s.mu.Unlock()
	first, err := s.reaper.open(pid)
	if err != nil {
		return nil, s.execError(c, errorf(shimapi.CodeState, "container %s is not running", c.run.ID))
	}
	defer unix.Close(first)
	start := s.reaper.begin()
	defer s.reaper.end(start)
	p, err := s.launcher().Exec(launch.ExecRequest{
		PidFD: first, Process: req.Launch, Seccomp: c.native.seccomp, Files: stdio, Terminal: req.Terminal, Cgroups: groups,
		CgroupNamespace: c.native.cgroupNamespace,
	})
	if err != nil && hasEnded(first) {
		err = errorf(shimapi.CodeState, "container %s is not running", c.run.ID)
	}
	if err != nil {
		return nil, s.execError(c, err)
	}
	return s.adoptExec(c, start, p), nil
}
