package shim

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"errand.dev/errand/internal/oci/shimapi"
)

// dispatch serves one request. An error it returns is for the client, if that is still there.
func (s *Shim) dispatch(c *call) error {
	switch c.op {
	case shimapi.OpPing:
		return c.reply(nil)
	case shimapi.OpRun:
		return s.opRun(c)
	case shimapi.OpSignal:
		return serveOp(c, s.signal)
	case shimapi.OpDelete:
		return serveOp(c, func(ref shimapi.ContainerRef) error { return s.delete(ref.ID) })
	case shimapi.OpUpdate:
		return s.opUpdate(c)
	case shimapi.OpReopen:
		return serveOp(c, s.reopen)
	case shimapi.OpList:
		return c.reply(s.list())
	case shimapi.OpEvents:
		return s.opEvents(c)
	case shimapi.OpExec:
		return s.opExec(c)
	case shimapi.OpAttach:
		return s.opAttach(c)
	case shimapi.OpDrain:
		return s.opDrain(c)
	}
	return errorf(shimapi.CodeInvalid, "this errand-shim doesn't know the request %q", c.op)
}

// serveOp serves requests that have no answer but success.
func serveOp[T any](c *call, do func(T) error) error {
	var req T
	if err := c.decode(&req); err != nil {
		return err
	}
	if err := do(req); err != nil {
		return err
	}
	return c.reply(nil)
}

func (s *Shim) opRun(c *call) error {
	var req shimapi.Run
	if err := c.decode(&req); err != nil {
		return err
	}
	res, err := s.startContainer(req)
	if err != nil {
		return err
	}
	return c.reply(res)
}

func (s *Shim) opUpdate(call *call) error {
	var req shimapi.Update
	if err := call.decode(&req); err != nil {
		return err
	}
	c, err := s.find(req.ID, running)
	if err != nil {
		return err
	}
	if c.native != nil {
		return call.reply(shimapi.Updated{CgroupsPath: c.run.CgroupsPath})
	}
	if err := s.update(c, req); err != nil {
		return err
	}
	return call.reply(shimapi.Updated{})
}

func (s *Shim) reopen(ref shimapi.ContainerRef) error {
	c, err := s.find(ref.ID, running, exited)
	if err != nil || c.out == nil {
		return err
	}
	return c.out.ReopenLog()
}

// list waits for the starts that are in flight: one whose client has died must not be missing in what its successor
// sees first.
func (s *Shim) list() shimapi.Containers {
	s.mu.Lock()
	var inFlight []*container
	for _, c := range s.containers {
		if c.phase == starting {
			inFlight = append(inFlight, c)
		}
	}
	s.mu.Unlock()
	for _, c := range inFlight {
		<-c.done.started
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	res := shimapi.Containers{Containers: make([]shimapi.Container, 0, len(s.containers))}
	for _, c := range s.containers {
		if c.phase != starting {
			res.Containers = append(res.Containers, c.status())
		}
	}
	return res
}

func (s *Shim) opEvents(c *call) error {
	var req shimapi.Events
	if err := c.decode(&req); err != nil {
		return err
	}
	gone := c.gone()
	for after := req.After; ; {
		batch, changed := s.exitsAfter(after)
		for _, st := range batch {
			if err := c.reply(st); err != nil {
				return err
			}
			after = st.Seq
		}
		select {
		case <-changed:
		case <-gone:
			return nil
		}
	}
}

// exitsAfter returns the exits that aren't deleted yet with a seq above after, and what is closed once there are more.
func (s *Shim) exitsAfter(after uint64) ([]shimapi.Container, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var batch []shimapi.Container
	for _, c := range s.exits[position(s.exits, after+1):] {
		batch = append(batch, c.status())
	}
	return batch, s.changed
}

// position of the first exit with at least this seq.
func position(exits []*container, seq uint64) int {
	i, _ := slices.BinarySearchFunc(exits, seq, func(c *container, seq uint64) int {
		if c.seq < seq {
			return -1
		}
		return 1
	})
	return i
}

func without(exits []*container, c *container) []*container {
	if i := position(exits, c.seq); i < len(exits) && exits[i] == c {
		return slices.Delete(exits, i, i+1)
	}
	return exits
}

func (s *Shim) opExec(c *call) error {
	var req shimapi.Exec
	if err := c.decode(&req); err != nil {
		return err
	}
	stdio := [3]int{-1, -1, -1}
	if n := copy(stdio[:], c.fds); req.Terminal && n != 0 || !req.Terminal && n != 3 {
		return errorf(shimapi.CodeInvalid, "exec with %d descriptors: needs 3, or none with a terminal", len(c.fds))
	}
	x, err := s.startExec(req, stdio)
	if err != nil {
		return err
	}
	// The process has its own; as long as we hold these, nobody sees the end of its output.
	shimapi.CloseFDs(c.fds)
	c.fds = nil
	if x.master >= 0 {
		err = c.reply(x.Started, x.master)
		unix.Close(x.master)
	} else {
		err = c.reply(x.Started)
	}
	if err != nil {
		// Nobody knows of this process.
		return errors.Join(err, s.reaper.kill(x.Pid, unix.SIGKILL))
	}
	select {
	case exit := <-x.ended:
		return c.reply(exit)
	case <-c.gone():
		if req.Bound {
			return s.reaper.killGroup(x.Pid)
		}
		return nil
	}
}

func (s *Shim) opAttach(c *call) error {
	var req shimapi.Attach
	if err := c.decode(&req); err != nil {
		return err
	}
	want := 0
	stdout, stderr := -1, -1
	for _, w := range []struct {
		asked bool
		fd    *int
	}{{req.Stdout, &stdout}, {req.Stderr, &stderr}} {
		if w.asked && want < len(c.fds) {
			*w.fd = c.fds[want]
		}
		if w.asked {
			want++
		}
	}
	if want != len(c.fds) {
		return errorf(shimapi.CodeInvalid, "attach with %d descriptors: needs %d", len(c.fds), want)
	}
	ctr, err := s.find(req.ID, running)
	if err != nil {
		return err
	}
	c.fds = nil // taken over
	attached, err := ctr.out.Attach(stdout, stderr)
	if err != nil {
		return errorf(shimapi.CodeState, "container %s is not running", req.ID)
	}
	defer attached.Detach()
	if err := s.replyInput(c, ctr, req.Stdin); err != nil {
		return err
	}
	select {
	case <-attached.Done():
		return c.reply(nil)
	case <-c.gone():
		return nil
	}
}

// replyInput answers an attach with the descriptor to write the container's input to. With StdinOnce the first client to
// attach gets the only one, so that the container's stdin ends when that client closes it or dies.
func (s *Shim) replyInput(c *call, ctr *container, stdin bool) error {
	s.mu.Lock()
	fd := ctr.master
	if fd < 0 && stdin {
		fd = ctr.stdin
	}
	if fd >= 0 {
		// Ours may be closed at any time.
		fd, _ = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	}
	if stdin && ctr.run.StdinOnce && ctr.stdin >= 0 {
		unix.Close(ctr.stdin)
		ctr.stdin = -1
	}
	s.mu.Unlock()
	if fd < 0 {
		return c.reply(nil)
	}
	defer unix.Close(fd)
	return c.reply(nil, fd)
}
