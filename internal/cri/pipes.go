package cri

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// pipeSet joins a process's files to a client's streams.
type pipeSet struct {
	err     error
	theirs  []*os.File // the process's ends, closed once it has them
	outputs []*os.File
	inputs  []*os.File
	copies  sync.WaitGroup
}

// output is a file whose content goes to w; nil for nil.
func (p *pipeSet) output(w io.WriteCloser) *os.File {
	if w == nil {
		return nil
	}
	r, theirs := p.pipe()
	if r == nil {
		return nil
	}
	p.outputs = append(p.outputs, r)
	p.theirs = append(p.theirs, theirs)
	p.copies.Go(func() { io.Copy(w, r) }) //nolint:errcheck // ends with either side
	return theirs
}

// input is a file with the content of in; nil for nil.
func (p *pipeSet) input(in io.Reader) *os.File {
	if in == nil {
		return nil
	}
	theirs, w := p.pipe()
	if w == nil {
		return nil
	}
	p.theirs = append(p.theirs, theirs)
	p.inputs = append(p.inputs, w)
	// Nobody waits for it: the client may keep its side open for as long as it
	// likes.
	go func() {
		io.Copy(w, in) //nolint:errcheck // ends with either side
		w.Close()      //nolint:errcheck // closed twice is closed
	}()
	return theirs
}

func (p *pipeSet) pipe() (r, w *os.File) {
	r, w, err := os.Pipe()
	if err != nil {
		p.err = fmt.Errorf("make a pipe: %w", err)
		return nil, nil
	}
	return r, w
}

// started lets go of the process's ends, without which no output would end.
func (p *pipeSet) started() {
	for _, f := range p.theirs {
		f.Close() //nolint:errcheck // nothing is buffered
	}
	p.theirs = nil
}

// drain waits for the rest of the output, but not long: a child may have kept
// the pipe.
func (p *pipeSet) drain(d time.Duration) {
	for _, f := range p.outputs {
		_ = f.SetReadDeadline(time.Now().Add(d))
	}
	p.copies.Wait()
}

func (p *pipeSet) close() {
	p.started()
	for _, f := range append(p.outputs, p.inputs...) {
		f.Close() //nolint:errcheck // nothing is buffered
	}
}

func strconvJoin(cmd []string, code int) string {
	return fmt.Sprintf("%q: exit code %d", strings.Join(cmd, " "), code)
}
