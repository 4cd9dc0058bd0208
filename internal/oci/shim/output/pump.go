// Package output takes what containers write from their pipes and terminals to their log files and to whoever is
// attached.
//
// It owns the reading ends, the log files and the attached descriptors. It doesn't know of processes: it is told when one
// has exited. Its memory doesn't grow with what containers write: a container that writes faster than its log file, or
// than an attached reader, waits in its own write, and no other container does.
//
// Idle streams cost a descriptor and some hundred bytes: one epoll set watches all of them, and goroutines and buffers exist
// only while there is something to read.
package output

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"errand.dev/errand/internal/oci/shim/crilog"
)

const (
	// workers bounds the containers being handled at once: enough that writers stuck in a slow disk leave room for others.
	workers = 16
	// maxEvents bounds what one call of epoll_wait returns.
	maxEvents = 64
	// readSize is what a pipe holds by default.
	readSize = 64 << 10
	// flushSize bounds the records collected before they are written.
	flushSize = 128 << 10
)

// Pump moves the output of all containers.
type Pump struct {
	epoll int
	slots chan struct{}
	bufs  sync.Pool // *buffers
	// compressing holds whose old logs are being compressed.
	compressing chan struct{}

	mu      sync.Mutex
	sources map[int32]source
	lastID  int32
}

// source is what epoll watches, once for each arming.
type source interface {
	owner() *Output
	ready(b *buffers) // with owner().mu held
}

type buffers struct {
	in  []byte
	out []byte
}

// NewPump returns a Pump that works once Run is called.
func NewPump() (*Pump, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	p := &Pump{epoll: fd, slots: make(chan struct{}, workers), sources: map[int32]source{}, compressing: make(chan struct{}, 1)}
	p.bufs.New = func() any {
		return &buffers{in: make([]byte, readSize), out: make([]byte, 0, flushSize+crilog.MaxRecord(crilog.DefaultMaxLine))}
	}
	return p, nil
}

// Run moves output for as long as the process lives; it returns only if epoll fails, which it has no reason to.
func (p *Pump) Run() error {
	for {
		if _, err := p.take(-1); err != nil {
			return err
		}
	}
}

// take puts what epoll reports within timeout milliseconds (-1: for ever) in line, up to maxEvents, in the order in which
// it became ready: so a log has what a container wrote to its two streams in the order of writing, as far as the kernel
// tells it.
func (p *Pump) take(timeout int) (int, error) {
	var events [maxEvents]unix.EpollEvent
	n, err := unix.EpollWait(p.epoll, events[:], timeout)
	if err != nil && !errors.Is(err, unix.EINTR) {
		return 0, fmt.Errorf("epoll_wait: %w", err)
	}
	for _, e := range events[:max(n, 0)] {
		if o := p.line(e.Fd); o != nil {
			go p.work(o)
		}
	}
	return n, nil
}

// work has an Output's line served, and lets others have their turn in between.
func (p *Pump) work(o *Output) {
	for more := true; more; {
		p.slots <- struct{}{}
		b := p.bufs.Get().(*buffers)
		more = o.step(b)
		p.bufs.Put(b)
		<-p.slots
	}
}

// line puts a source in its Output's line, and returns that Output if nobody works on it yet.
func (p *Pump) line(id int32) *Output {
	p.mu.Lock()
	defer p.mu.Unlock()
	src := p.sources[id]
	if src == nil {
		return nil // closed since
	}
	o := src.owner()
	o.due = append(o.due, src)
	if o.working {
		return nil
	}
	o.working = true
	return o
}

// watch adds fd, not armed yet, and returns the number it is known by. Numbers aren't reused, unlike descriptors, so that a
// late event can't reach another source.
func (p *Pump) watch(fd int, src source) (int32, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lastID++
	id := p.lastID
	if err := unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLONESHOT, Fd: id}); err != nil {
		return 0, fmt.Errorf("epoll_ctl: %w", err)
	}
	p.sources[id] = src
	return id, nil
}

// arm asks for one call of ready once fd has any of events.
func (p *Pump) arm(fd int, id int32, events uint32) {
	// Fails only for a descriptor that isn't in the set, which no source does.
	_ = unix.EpollCtl(p.epoll, unix.EPOLL_CTL_MOD, fd, &unix.EpollEvent{Events: events | unix.EPOLLONESHOT, Fd: id})
}

// forget ends watching; fd must be still open.
func (p *Pump) forget(fd int, id int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.sources, id)
	_ = unix.EpollCtl(p.epoll, unix.EPOLL_CTL_DEL, fd, nil)
}
