package shim

import (
	"time"

	"golang.org/x/sys/unix"

	"errand.dev/errand/internal/oci/shim/output"
	"errand.dev/errand/internal/oci/shimapi"
)

// phase of a container: the only ways are starting → running → exited → deleting, and from deleting back to exited if
// deleting fails. A start that fails removes the container.
type phase int

const (
	starting phase = iota
	running
	exited
	deleting
)

// container is one that the shim is or was the parent of.
type container struct {
	run shimapi.Run
	dir string
	out *output.Output // nil if it ended under another shim
	// native, unless nil, says that no runtime knows the container.
	native *native
	done   doneChans
	// clean: nothing is left but dir and out. Set before the phase exited, by its only writer.
	clean bool

	// Guarded by Shim.mu:

	phase     phase
	runtime   int // pid of the runtime that starts it, while starting
	cancelled bool
	pid       int
	startedAt time.Time
	exit      *shimapi.Exit
	seq       uint64
	stdin     int // write end of its stdin, -1 if none
	master    int // of its terminal, -1 if none
	execs     map[int]struct{}
}

// doneChans tell of a container's phases to those who wait for them.
type doneChans struct {
	started chan struct{} // the start has succeeded or failed
	exited  chan struct{} // the exit is recorded
	deleted chan struct{} // an attempt to delete is over; replaced at the next
}

func newContainer(run shimapi.Run, dir string) *container {
	return &container{
		run: run, dir: dir, stdin: -1, master: -1, execs: map[int]struct{}{},
		done: doneChans{started: make(chan struct{}), exited: make(chan struct{})},
	}
}

// status is called with Shim.mu held.
func (c *container) status() shimapi.Container {
	st := shimapi.Container{ID: c.run.ID, Pid: c.pid, StartedAt: c.startedAt, State: shimapi.Running}
	if c.exit != nil {
		st.State, st.Exit, st.Seq = shimapi.Exited, c.exit, c.seq
	}
	return st
}

// closeInput is called with Shim.mu held.
func (c *container) closeInput() {
	for _, fd := range []*int{&c.stdin, &c.master} {
		if *fd >= 0 {
			_ = unix.Close(*fd)
			*fd = -1
		}
	}
}

// find returns the container with an ID in one of the phases.
func (s *Shim) find(id string, phases ...phase) (*container, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.containers[id]
	if c == nil || c.phase == starting {
		return nil, errorf(shimapi.CodeNotFound, "no container %s", id)
	}
	for _, p := range phases {
		if c.phase == p {
			return c, nil
		}
	}
	return nil, errorf(shimapi.CodeState, "container %s is not running", id)
}

// announce makes a recorded exit known.
func (s *Shim) announce(c *container, exit *shimapi.Exit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seq++
	c.phase, c.exit, c.seq = exited, exit, s.seq
	s.exits = append(s.exits, c)
	c.closeInput()
	close(c.done.exited)
	close(s.changed)
	s.changed = make(chan struct{})
}

// leave is called with Shim.mu held once a container no longer starts or runs.
func (s *Shim) leave() {
	s.active--
	s.checkIdle()
}

// checkIdle is called with Shim.mu held.
func (s *Shim) checkIdle() {
	if s.draining && s.active == 0 {
		select {
		case <-s.idle:
		default:
			close(s.idle)
		}
	}
}
