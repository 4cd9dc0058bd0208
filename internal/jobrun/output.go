package jobrun

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Output is where a Job's logs go, and what is said about it. Its methods can be
// called concurrently; lines never mix.
type Output struct {
	mu     sync.Mutex
	logs   io.Writer
	spoken io.Writer
	prefix string
	// unfinished is whose line has no end yet; nil if the last one has.
	unfinished *stream
	// failed is why nothing more can be written of the logs.
	failed error
}

// errNotWritten is why a log isn't read any further: what comes of it can't be written.
var errNotWritten = errors.New("the output can't be written")

// NewOutput returns an output whose lines about the Job begin with prefix.
func NewOutput(logs, spoken io.Writer, prefix string) *Output {
	return &Output{logs: logs, spoken: spoken, prefix: prefix}
}

// Say says something about the Job. What can't be written is lost: there is nobody
// to tell.
func (o *Output) Say(format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	fmt.Fprintf(o.spoken, o.prefix+format+"\n", args...)
}

// log writes a piece of a log, which begins a line, behind prefix, or goes on with one.
// A line that another stream's comes between is broken off, and taken up behind prefix.
func (o *Output) log(from *stream, prefix string, b []byte, begins bool) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	begins = begins || o.unfinished != from
	var line []byte
	if begins && o.unfinished != nil {
		line = append(line, '\n')
	}
	if begins {
		line = append(line, prefix...)
	}
	if len(line) > 0 {
		b = append(line, b...)
	}
	o.unfinished = from
	if bytes.HasSuffix(b, []byte("\n")) {
		o.unfinished = nil
	}
	if o.failed == nil {
		_, o.failed = o.logs.Write(b)
	}
	if o.failed != nil {
		return errNotWritten
	}
	return nil
}

// Failed is why the logs couldn't be written, or nil if they could.
func (o *Output) Failed() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.failed
}
