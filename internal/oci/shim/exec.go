package shim

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"errand.dev/errand/internal/oci/shim/launch"
	"errand.dev/errand/internal/oci/shimapi"
)

// process is one that was started in a container.
type process struct {
	shimapi.Started
	master int // of its terminal, -1 if none; the holder closes it
	ended  <-chan shimapi.Exit
}

// startExec starts a process in a running container. Its descriptors remain the caller's.
func (s *Shim) startExec(req shimapi.Exec, stdio [3]int) (*process, error) {
	c, err := s.find(req.ID, running)
	if err != nil {
		return nil, err
	}
	if c.native != nil {
		return s.execNative(c, req, stdio)
	}
	base := s.tempName("exec")
	files := map[string]string{"process": base + ".json", "pid": base + ".pid", "log": base + ".log"}
	defer func() {
		for _, f := range files {
			_ = os.Remove(f)
		}
	}()
	if err := os.WriteFile(files["process"], req.Process, 0o600); err != nil {
		return nil, err
	}
	args := []string{"--detach", "--process", files["process"], "--pid-file", files["pid"]}
	var tty *console
	if req.Terminal {
		if tty, err = newConsole(base + ".tty"); err != nil {
			return nil, err
		}
		defer tty.close()
		args = append(args, "--console-socket", tty.path)
	}
	start := s.reaper.begin()
	defer s.reaper.end(start)
	err = s.execute(command{
		handler: c.run.Handler, dir: c.dir, name: "exec", args: append(args, req.ID), files: stdio, log: files["log"],
		stop: c.done.exited,
	})
	if err != nil {
		return nil, s.execError(c, err)
	}
	data, err := os.ReadFile(files["pid"])
	p := launch.Process{Terminal: -1}
	if _, scanErr := fmt.Sscan(strings.TrimSpace(string(data)), &p.Pid); err != nil || scanErr != nil || p.Pid <= 1 {
		return nil, errorf(shimapi.CodeRuntime, "OCI runtime exec failed: its pid file says %q", data)
	}
	if tty != nil {
		p.Terminal, err = tty.master()
	}
	x := s.adoptExec(c, start, p)
	if err != nil {
		_ = s.reaper.kill(p.Pid, unix.SIGKILL)
		return nil, err
	}
	return x, nil
}

// execError says so if the container ended under the exec: the runtime's message is about some detail of that then.
func (s *Shim) execError(c *container, err error) error {
	select {
	case <-c.done.exited:
		return errorf(shimapi.CodeState, "container %s is not running", c.run.ID)
	default:
		return err
	}
}

// adoptExec follows a process that has been started in a container.
func (s *Shim) adoptExec(c *container, start uint64, p launch.Process) *process {
	over := make(chan shimapi.Exit, 1)
	s.mu.Lock()
	c.execs[p.Pid] = struct{}{}
	s.mu.Unlock()
	s.reaper.adopt(start, p.Pid, func(e ended) {
		s.mu.Lock()
		delete(c.execs, p.Pid)
		s.mu.Unlock()
		over <- shimapi.Exit{Code: e.code, At: e.at}
	})
	return &process{Started: shimapi.Started{Pid: p.Pid, At: time.Now()}, master: p.Terminal, ended: over}
}

// update has the runtime change the limits of a running container.
func (s *Shim) update(c *container, req shimapi.Update) error {
	if !json.Valid(req.Resources) {
		return errorf(shimapi.CodeInvalid, "resources of %s are not JSON", req.ID)
	}
	base := s.tempName("update")
	defer os.Remove(base + ".json")
	if err := os.WriteFile(base+".json", req.Resources, 0o600); err != nil {
		return err
	}
	return s.execute(command{
		handler: c.run.Handler, dir: c.dir, name: "update", args: []string{"--resources", base + ".json", req.ID},
		files: [3]int{-1, -1, -1}, log: filepath.Join(c.dir, filepath.Base(base)+".log"), stop: c.done.exited,
	})
}
