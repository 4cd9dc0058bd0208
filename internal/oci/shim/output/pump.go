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
	// workers bounds the streams being handled at once: enough that writers stuck in a slow disk leave room for others.
	workers = 16
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
	ready(b *buffers)
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
	events := make([]unix.EpollEvent, 64)
	for {
		n, err := unix.EpollWait(p.epoll, events, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("epoll_wait: %w", err)
		}
		for _, e := range events[:max(n, 0)] {
			p.mu.Lock()
			src := p.sources[e.Fd]
			p.mu.Unlock()
			if src == nil {
				continue // closed since
			}
			p.slots <- struct{}{}
			go func() {
				b := p.bufs.Get().(*buffers)
				src.ready(b)
				p.bufs.Put(b)
				<-p.slots
			}()
		}
	}
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
