package jobrun

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// maxLine is how long a line can be that is written in one piece, and so mixes with
// no other pod's.
const maxLine = 256 << 10

// stream is the log of one run of a container.
type stream struct {
	logs      *logs
	pod       *podStreams
	namespace string
	name      string
	runOf
	several bool // its pod has more than one container
	place   atomic.Int32
	gate    bool      // others of the pod begin after it: it is an init container's
	after   []*stream // those that it follows
	over    chan struct{}
	isOver  bool
	moved   chan struct{} // something happened that can make a new attempt worth while
	done    chan struct{}
	// What has been read: up to the time last, of which so many lines.
	last time.Time
	same int
}

// Where the API has a run's log.
const (
	current  = iota // as the container's
	previous        // as that of its run before
	passed          // no more: what it has is other runs'
)

// errPassed is why the log of a run can't be read.
var errPassed = errors.New("its container has run twice since")

// end takes that the run has ended: its log grows no more. It and move are called by
// one goroutine.
func (s *stream) end() {
	if !s.isOver {
		s.isOver = true
		close(s.over)
	}
}

// move takes that a new attempt can be worth while.
func (s *stream) move() {
	select {
	case s.moved <- struct{}{}:
	default:
	}
}

// follow copies the log until the run has ended and all of it has been read. A log
// that ends, or breaks off, while the run goes on is taken up where it was left: the
// API server, or what it has the log from, was restarted.
func (s *stream) follow() {
	defer close(s.done)
	ctx := s.pod.ctx
	for _, other := range s.after {
		select {
		case <-other.done:
		case <-ctx.Done():
			return
		}
	}
	for wasRead := false; ; {
		over := closed(s.over)
		err := s.copy(ctx, over)
		if over && (errors.Is(err, errPassed) || apierrors.IsNotFound(err) && !wasRead) {
			err = s.copyKept(ctx, err)
		}
		switch {
		case ctx.Err() != nil:
			return
		case over:
			// A pod can be deleted as soon as it has ended; what had been read by then was all.
			if err != nil && !(apierrors.IsNotFound(err) && wasRead) && !errors.Is(err, errNotWritten) {
				s.logs.output.Say("the log of container %s of pod %s can't be read: %v", s.container, s.name, err)
			}
			return
		case err == nil:
			wasRead = true
			select {
			case <-s.moved: // while it was read
			default:
			}
		}
		select {
		case <-s.over:
		case <-s.moved:
		case <-ctx.Done():
			return
		}
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// copy copies what of the log hasn't been read yet, of a run that is over or goes on.
func (s *stream) copy(ctx context.Context, over bool) error {
	place := s.place.Load()
	if place == passed {
		return errPassed
	}
	// One that is over isn't followed: by now the log may be the next run's.
	options := &corev1.PodLogOptions{Container: s.container, Follow: !over, Previous: place == previous, Timestamps: true}
	if !s.last.IsZero() {
		since := metav1.NewTime(s.last) // in whole seconds, so that lines come twice
		options.SinceTime = &since
	}
	body, err := s.logs.client.CoreV1().Pods(s.namespace).GetLogs(s.name, options).Stream(ctx)
	if err != nil {
		return err
	}
	defer body.Close()
	return s.copyFrom(body)
}

// copyKept copies what the API has no more, if that is kept; why says that it hasn't.
func (s *stream) copyKept(ctx context.Context, why error) error {
	if s.logs.kept == nil {
		return s.lost(why)
	}
	body, err := s.logs.kept(ctx, s.pod.uid, s.container, s.run)
	if err != nil {
		return s.lost(why) // it isn't kept, or this client may not ask
	}
	defer body.Close()
	return s.copyFrom(body)
}

// lost says why there is no more of a log: nothing, if a part of it was read that passes for all.
func (s *stream) lost(why error) error {
	if errors.Is(why, errPassed) && !s.last.IsZero() {
		return nil
	}
	return why
}

// copyFrom copies from a log what hasn't been read yet.
func (s *stream) copyFrom(body io.Reader) error {
	known, skip := s.last, s.same
	r := bufio.NewReaderSize(body, maxLine)
	for begins, wanted := true, true; ; {
		piece, err := r.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) && !errors.Is(err, io.EOF) {
			return err // a line that has no end is read again
		}
		if begins && len(piece) > 0 {
			var at time.Time
			at, piece = cutTime(piece)
			wanted = s.read(at, known, &skip)
		}
		begins = err == nil
		if wanted && len(piece) > 0 {
			if err := s.write(piece, err); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
	}
}

// read counts a line of that time as read, and says whether it is a new one. Known is
// how far an earlier reading came, skip how many lines of exactly that time it had.
func (s *stream) read(at, known time.Time, skip *int) bool {
	switch {
	case at.IsZero():
		return true
	case at.Before(known):
		return false
	case at.Equal(known) && *skip > 0:
		*skip--
		return false
	case at.Equal(s.last):
		s.same++
	default:
		s.last, s.same = at, 1
	}
	return true
}

// write writes a piece of the log; ended says why it has no line's end, if it hasn't.
func (s *stream) write(piece []byte, ended error) error {
	many := s.logs.many.Load()
	prefix := ""
	switch {
	case many && s.several:
		prefix = "[" + s.name + "/" + s.container + "] "
	case many:
		prefix = "[" + s.name + "] "
	case s.several:
		prefix = "[" + s.container + "] "
	}
	// The next line is another's: a last one without its end gets one.
	if prefix != "" && errors.Is(ended, io.EOF) {
		piece = append(bytes.Clone(piece), '\n')
	}
	return s.logs.output.log(prefix, piece)
}

// cutTime takes off a line the time that the API put before it.
func cutTime(line []byte) (time.Time, []byte) {
	stamp, rest, found := bytes.Cut(line, []byte(" "))
	if !found {
		return time.Time{}, line
	}
	at, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil {
		return time.Time{}, line
	}
	return at, rest
}
