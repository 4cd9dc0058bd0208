package output

import (
	"cmp"
	"errors"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"errand.dev/errand/internal/oci/shim/crilog"
)

// ErrEnded says that there is no output any more to attach to.
var ErrEnded = errors.New("the container has exited")

// terminalGrace is how long Finish waits for the end of a terminal that somebody still holds open. Unlike a pipe's, a
// terminal's content can't be counted: the kernel passes it on in the background.
const terminalGrace = 500 * time.Millisecond

// Config says where a container's output comes from and goes to.
type Config struct {
	// Stdout and Stderr are the reading ends of pipes, -1 if there is none. With Terminal, Stdout is the pty's master.
	// The Output takes them over.
	Stdout, Stderr int
	Terminal       bool
	// Log is the log file, nil to discard the output.
	Log *LogFile
	// MaxLine is the longest line content in bytes of a log record, 0 for the CRI's 16 KiB.
	MaxLine int
}

// Output is one container's.
type Output struct {
	pump *Pump

	mu       sync.Mutex
	log      *LogFile
	streams  []*stream // those still open
	finished bool
	eof      chan struct{} // closed when no stream is open
	attached map[*Attachment]struct{}

	// Guarded by pump.mu: what is ready, first come first, and whether somebody works on it.
	due     []source
	working bool
}

// Open starts moving a container's output.
func (p *Pump) Open(c Config) (*Output, error) {
	o := &Output{pump: p, log: c.Log, eof: make(chan struct{}), attached: map[*Attachment]struct{}{}}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, s := range []*stream{{fd: c.Stdout, name: crilog.Stdout, terminal: c.Terminal}, {fd: c.Stderr, name: crilog.Stderr}} {
		if s.fd < 0 {
			continue
		}
		s.o, s.split = o, crilog.New(s.name, c.MaxLine)
		err := unix.SetNonblock(s.fd, true)
		if err == nil {
			s.id, err = p.watch(s.fd, s)
		}
		if err != nil {
			o.closeLocked()
			return nil, err
		}
		o.streams = append(o.streams, s)
		p.arm(s.fd, s.id, unix.EPOLLIN)
	}
	return o, nil
}

// ReopenLog opens the log file at its path anew, after somebody has renamed it.
func (o *Output) ReopenLog() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.log == nil {
		return nil
	}
	return o.log.reopen()
}

// Finish is called once the container's first process has exited. When it returns, all that was written before that
// is in the log, and attachments end. It doesn't wait for the end of pipes that some other process still holds: what
// comes later is logged too, until Close.
func (o *Output) Finish() {
	o.mu.Lock()
	waitFor := false
	for _, s := range o.streams {
		waitFor = waitFor || s.terminal
	}
	o.mu.Unlock()
	if waitFor {
		grace := time.NewTimer(terminalGrace)
		defer grace.Stop()
		select {
		case <-o.eof:
		case <-grace.C:
		}
	}
	for n := maxEvents; n == maxEvents; { // learns the order of what nobody has looked at yet
		n, _ = o.pump.take(0) // a failure is Run's to tell
	}
	b := o.pump.bufs.Get().(*buffers)
	defer o.pump.bufs.Put(b)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.finished = true
	for _, s := range o.byReadiness() {
		s.drain(b)
	}
	for a := range o.attached {
		a.end()
	}
}

// step lets the first in line read or write. It returns false once the line is empty.
func (o *Output) step(b *buffers) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	src := o.next()
	if src == nil {
		return false
	}
	src.ready(b)
	return true
}

func (o *Output) next() source {
	o.pump.mu.Lock()
	defer o.pump.mu.Unlock()
	if len(o.due) == 0 {
		o.due, o.working = nil, false
		return nil
	}
	src := o.due[0]
	o.due = o.due[1:]
	return src
}

// byReadiness returns the open streams, those in line first.
func (o *Output) byReadiness() []*stream {
	o.pump.mu.Lock()
	defer o.pump.mu.Unlock()
	place := func(s *stream) int {
		if i := slices.Index(o.due, source(s)); i >= 0 {
			return i
		}
		return len(o.due)
	}
	streams := slices.Clone(o.streams)
	slices.SortStableFunc(streams, func(a, b *stream) int { return cmp.Compare(place(a), place(b)) })
	return streams
}

// Close lets go of everything: pipes, attached descriptors, the log.
func (o *Output) Close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.finished = true
	o.closeLocked()
}

func (o *Output) closeLocked() {
	for len(o.streams) > 0 {
		o.streams[0].close()
	}
	for a := range o.attached {
		a.drop()
	}
	if o.log != nil {
		o.log.Close()
		o.log = nil
	}
}

// write appends to the log.
func (o *Output) write(p []byte) {
	if o.log != nil && len(p) > 0 {
		if o.log.write(p) {
			o.pump.compress(o.log)
		}
	}
}
