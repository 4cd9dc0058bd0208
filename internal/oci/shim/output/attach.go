package output

import (
	"errors"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Attachment is a reader of a container's live output.
type Attachment struct {
	o     *Output
	sinks []*sink // those still open; guarded by o.mu
	done  chan struct{}
	once  sync.Once
}

// Attach copies what is written from now on to the descriptors (-1: not wanted), which it takes over and makes
// non-blocking. Of a terminal all output is stdout. Errors: ErrEnded; the descriptors are closed then too.
func (o *Output) Attach(stdout, stderr int) (*Attachment, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	a := &Attachment{o: o, done: make(chan struct{})}
	want := map[string]int{"stdout": stdout, "stderr": stderr}
	if !o.finished {
		for _, s := range o.streams {
			fd := want[s.name]
			if fd < 0 || unix.SetNonblock(fd, true) != nil {
				continue
			}
			delete(want, s.name)
			k := &sink{a: a, s: s, fd: fd}
			s.sinks = append(s.sinks, k)
			a.sinks = append(a.sinks, k)
		}
	}
	// A stream that has ended, or never was, ends at once for its reader too.
	for _, fd := range want {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
	if o.finished {
		return nil, ErrEnded
	}
	o.attached[a] = struct{}{}
	if len(a.sinks) == 0 && (stdout >= 0 || stderr >= 0) {
		a.drop()
	}
	return a, nil
}

// Done is closed once all output has been passed on, or the reader has gone. An attachment without output (for stdin only)
// is done when the container is.
func (a *Attachment) Done() <-chan struct{} { return a.done }

// Detach ends it.
func (a *Attachment) Detach() {
	a.o.mu.Lock()
	defer a.o.mu.Unlock()
	a.drop()
}

func (a *Attachment) drop() {
	for len(a.sinks) > 0 {
		a.sinks[0].close()
	}
	a.finish()
}

// end ends it once what is still pending has been passed on.
func (a *Attachment) end() {
	for _, k := range slices.Clone(a.sinks) {
		k.end()
	}
	if len(a.sinks) == 0 {
		a.finish()
	}
}

func (a *Attachment) finish() {
	delete(a.o.attached, a)
	a.once.Do(func() { close(a.done) })
}

// sink is an attached descriptor. Its fields are guarded by a.o.mu.
type sink struct {
	a       *Attachment
	s       *stream
	fd      int
	id      int32  // in the pump, 0 if it never had to wait
	pending []byte // what the reader hasn't taken yet: one read of the stream, which pauses meanwhile
	ending  bool
}

func (k *sink) write(p []byte) {
	if len(k.pending) > 0 { // while draining
		k.pending = append(k.pending, p...)
		return
	}
	rest, ok := k.push(p)
	if !ok || len(rest) == 0 {
		return
	}
	k.pending = slices.Clone(rest)
	if k.id == 0 {
		id, err := k.a.o.pump.watch(k.fd, k)
		if err != nil {
			k.close()
			return
		}
		k.id = id
	}
	k.a.o.pump.arm(k.fd, k.id, unix.EPOLLOUT)
}

// push writes what the reader takes. If the reader has gone it closes the sink and returns false.
func (k *sink) push(p []byte) (rest []byte, ok bool) {
	for len(p) > 0 {
		n, err := unix.Write(k.fd, p)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return p, true
		case errors.Is(err, unix.EINTR):
		case err != nil:
			k.close()
			return nil, false
		default:
			p = p[n:]
		}
	}
	return nil, true
}

func (k *sink) owner() *Output { return k.a.o }

// ready passes on what was pending.
func (k *sink) ready(*buffers) {
	if !slices.Contains(k.a.sinks, k) {
		return
	}
	rest, ok := k.push(k.pending)
	if !ok {
		return
	}
	if k.pending = rest; len(rest) > 0 {
		k.a.o.pump.arm(k.fd, k.id, unix.EPOLLOUT)
		return
	}
	k.pending = nil
	if k.ending {
		k.close()
		return
	}
	k.s.rearm()
}

func (k *sink) end() {
	if k.ending = true; len(k.pending) == 0 {
		k.close()
	}
}

func (k *sink) close() {
	if k.id != 0 {
		k.a.o.pump.forget(k.fd, k.id)
	}
	_ = unix.Close(k.fd)
	k.a.sinks = slices.DeleteFunc(k.a.sinks, func(other *sink) bool { return other == k })
	k.s.sinks = slices.DeleteFunc(k.s.sinks, func(other *sink) bool { return other == k })
	k.pending = nil
	k.s.rearm()
	if len(k.a.sinks) == 0 {
		k.a.finish()
	}
}
