package output

import (
	"errors"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"errand.dev/errand/internal/oci/shim/crilog"
)

// burst bounds in bytes what one call of ready takes from a stream before others get their turn.
const burst = 1 << 20

// stream is stdout or stderr (or both, of a terminal). Its fields are guarded by o.mu.
type stream struct {
	o        *Output
	fd       int
	id       int32
	name     string
	terminal bool
	split    *crilog.Splitter
	sinks    []*sink
	closed   bool
}

func (s *stream) owner() *Output { return s.o }

// ready reads what there is.
func (s *stream) ready(b *buffers) {
	for taken := 0; taken < burst && !s.closed && !s.stalled(); {
		n := s.read(b, len(b.in))
		if taken += n; n < len(b.in) {
			break // empty, most likely; if not, epoll says so at once
		}
	}
	s.rearm()
}

// rearm waits for more to read, unless an attached reader has to catch up first.
func (s *stream) rearm() {
	if !s.closed && !s.stalled() {
		s.o.pump.arm(s.fd, s.id, unix.EPOLLIN)
	}
}

func (s *stream) stalled() bool {
	return slices.ContainsFunc(s.sinks, func(k *sink) bool { return len(k.pending) > 0 })
}

// read moves up to limit bytes and returns how many there were. At the end of the stream it closes it.
func (s *stream) read(b *buffers, limit int) int {
	n, err := unix.Read(s.fd, b.in[:min(limit, len(b.in))])
	switch {
	case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR):
		return 0
	case err != nil || n <= 0: // a terminal ends with EIO
		s.flush(b)
		s.close()
		return 0
	}
	s.consume(b, b.in[:n])
	return n
}

func (s *stream) consume(b *buffers, chunk []byte) {
	if s.o.log != nil {
		now := time.Now()
		for rest := chunk; len(rest) > 0; {
			var n int
			b.out, n = s.split.Append(b.out[:0], rest, now, flushSize)
			s.o.write(b.out)
			rest = rest[n:]
		}
		b.shrink()
	}
	for _, k := range slices.Clone(s.sinks) {
		k.write(chunk)
	}
}

// shrink keeps the records of an unusually long maximum line from staying in memory.
func (b *buffers) shrink() {
	if cap(b.out) > 4*flushSize {
		b.out = make([]byte, 0, flushSize)
	}
}

// drain takes what was written before now: as many bytes as the pipe holds, as its end may never come.
func (s *stream) drain(b *buffers) {
	left := b.available(s.fd)
	for left > 0 && !s.closed {
		n := s.read(b, left)
		if n == 0 {
			break
		}
		left -= n
	}
	if !s.closed {
		s.flush(b)
	}
}

func (b *buffers) available(fd int) int {
	n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	if err != nil {
		return len(b.in)
	}
	return n
}

func (s *stream) flush(b *buffers) {
	if s.o.log != nil {
		b.out = s.split.Flush(b.out[:0], time.Now())
		s.o.write(b.out)
	}
}

func (s *stream) close() {
	s.closed = true
	s.o.pump.forget(s.fd, s.id)
	_ = unix.Close(s.fd)
	s.o.streams = slices.DeleteFunc(s.o.streams, func(other *stream) bool { return other == s })
	for _, k := range slices.Clone(s.sinks) {
		k.end()
	}
	if len(s.o.streams) == 0 {
		close(s.o.eof)
	}
}
