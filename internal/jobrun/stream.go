package jobrun

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"sync/atomic"

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
	several  bool // its pod has more than one container
	restarts bool // its pod may restart a container that fails
	place    atomic.Int32
	gate     bool      // others of the pod begin after it: it is an init container's
	after    []*stream // those that it follows
	over     chan struct{}
	isOver   bool
	moved    chan struct{} // something happened that can make a new attempt worth while
	done     chan struct{}
	// single says that no other run can follow upon this one, finished that none will any more.
	single, finished atomic.Bool
	cursor           cursor
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

// follow copies the log until the run has ended and all of it has been read.
func (s *stream) follow() {
	defer close(s.done)
	ctx := s.pod.ctx
	for _, other := range s.after {
		select {
		case <-other.done:
		case <-ctx.Done():
			return
		}
		if other.container == s.container {
			s.cursor.behind(&other.cursor)
		}
	}
	wasRead := s.followRunning(ctx)
	s.readEnded(ctx, wasRead)
}

// followRunning copies the log of a run that goes on, until it is over; wasRead says
// whether a reading came to an end. A log that ends, or breaks off, meanwhile is taken
// up where it was left: the API server, or what it has the log from, was restarted.
func (s *stream) followRunning(ctx context.Context) (wasRead bool) {
	for !closed(s.over) {
		if err := s.copy(ctx, s.place.Load(), true); err == nil {
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
			return wasRead
		}
	}
	return wasRead
}

// readEnded copies what there is of the log of a run that is over. What the API has as
// a container's log is the next run's as soon as there is one: it is read until it
// must have been this one's.
func (s *stream) readEnded(ctx context.Context, wasRead bool) {
	for ctx.Err() == nil {
		place := s.place.Load()
		err := s.copy(ctx, place, false)
		switch {
		// What was read of a container that is restarted may have been another run's.
		case errors.Is(err, errPassed), apierrors.IsNotFound(err) && (!wasRead || s.restarts):
			s.unreadable(ctx, s.copyKept(ctx, err), wasRead)
			return
		case err != nil:
			s.unreadable(ctx, err, wasRead)
			return
		case s.place.Load() != place:
			// While it was read the next run may have begun.
		case place == previous || s.single.Load():
			return
		case s.finished.Load():
			_ = s.copyKept(ctx, nil) // should it have been the next run's: nobody tells any more
			return
		default:
			select {
			case <-s.moved: // once there is a next one, this one's is read as the one before
			case <-ctx.Done():
			}
		}
		wasRead = true
	}
}

// unreadable tells why the log couldn't be read. A pod can be deleted as soon as it has
// ended: what had been read by then was all.
func (s *stream) unreadable(ctx context.Context, err error, wasRead bool) {
	if err == nil || ctx.Err() != nil || apierrors.IsNotFound(err) && wasRead || errors.Is(err, errNotWritten) {
		return
	}
	s.logs.output.Say("the log of container %s of pod %s can't be read: %v", s.container, s.name, err)
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// copy copies what of the log hasn't been read yet, of a run that goes on or is over.
func (s *stream) copy(ctx context.Context, place int32, follow bool) error {
	if place == passed {
		return errPassed
	}
	options := &corev1.PodLogOptions{Container: s.container, Follow: follow, Previous: place == previous, Timestamps: true}
	from := s.cursor.last
	if place == previous {
		from = s.cursor.floor // what was read may have been another run's
	}
	if !from.IsZero() {
		since := metav1.NewTime(from) // in whole seconds, so that lines come twice
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
	if errors.Is(why, errPassed) && !s.cursor.last.IsZero() {
		return nil
	}
	return why
}

// copyFrom copies from a log what hasn't been read yet.
func (s *stream) copyFrom(body io.Reader) error {
	pass := s.cursor.pass()
	r := bufio.NewReaderSize(body, maxLine)
	for begins := true; ; {
		piece, err := r.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) && !errors.Is(err, io.EOF) {
			return err // what came of a line before it broke off comes again
		}
		starts := false
		if begins && len(piece) > 0 {
			piece, starts = pass.begin(piece)
		}
		begins = err == nil
		if piece = pass.fresh(piece); len(piece) > 0 {
			if err := s.write(piece, starts, err); err != nil {
				return err
			}
			pass.wrote(len(piece), begins)
		}
		if errors.Is(err, io.EOF) {
			pass.end()
			return nil
		}
	}
}

// write writes a piece of the log, a line's first or a further one; ended says why it
// has no line's end, if it hasn't.
func (s *stream) write(piece []byte, first bool, ended error) error {
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
	return s.logs.output.log(s, prefix, piece, first)
}
