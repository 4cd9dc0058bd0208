package cri

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
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
	p.copies.Go(func() { copyOutput(w, r) })
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

// copyOutput copies what comes out of a pipe or a terminal until it ends. When a read deadline has passed, which is so once the process
// has exited, it copies what is there yet: whoever takes it may have been too slow for it.
func copyOutput(w io.Writer, r *os.File) {
	if _, err := io.Copy(w, r); errors.Is(err, os.ErrDeadlineExceeded) {
		_, _ = io.Copy(w, leftIn(r)) // ends with either side
	}
}

// maxLeft is what a pipe can hold, in bytes.
const maxLeft = 64 << 10

// leftIn reads from a file whose read deadline has passed what can be read at once, and no more than the file can have held by then.
func leftIn(r *os.File) io.Reader {
	return io.LimitReader(atOnce{r}, maxLeft)
}

// atOnce ends where its file has nothing to read.
type atOnce struct{ file *os.File }

// Read implements io.Reader.
func (a atOnce) Read(p []byte) (int, error) {
	raw, err := a.file.SyscallConn()
	if err = errors.Join(err, a.file.SetReadDeadline(time.Time{})); err != nil {
		return 0, err
	}
	n, readErr := 0, error(unix.EINTR)
	err = raw.Read(func(fd uintptr) bool {
		for readErr == unix.EINTR {
			n, readErr = unix.Read(int(fd), p)
		}
		return true
	})
	switch {
	case err != nil || readErr != nil && readErr != unix.EAGAIN:
		return 0, errors.Join(err, readErr)
	case n <= 0:
		return 0, io.EOF
	}
	return n, nil
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
