package jobrun

import (
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

// log writes a piece of a log.
func (o *Output) log(prefix string, b []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if prefix != "" {
		b = append([]byte(prefix), b...)
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
