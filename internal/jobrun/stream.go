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
	// What has been read: from the time first up to the time last, of which so many lines;
	// of the last of them so many bytes, if not all. Until lines of its own are, last is
	// what the run before has read up to: floor.
	first, last, floor time.Time
	same               int
	part               int
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
	s.inherit()
	for wasRead := false; ; {
		over, place := closed(s.over), s.place.Load()
		err := s.copy(ctx, place, over)
		// What was read of a container that is restarted may have been another run's.
		if over && (errors.Is(err, errPassed) || apierrors.IsNotFound(err) && (!wasRead || s.restarts)) {
			err = s.copyKept(ctx, err)
		}
		switch {
		case ctx.Err() != nil:
			return
		case over && err == nil && s.place.Load() != place:
			wasRead = true
			continue // by now it may have been the next run's
		case over && err == nil && place == current && !s.single.Load() && s.finished.Load():
			_ = s.copyKept(ctx, nil) // likewise, and nobody tells any more
			return
		case over && err == nil && place == current && !s.single.Load():
			wasRead = true // likewise: once that is known, it is read where it is this one's
			select {
			case <-s.moved:
			case <-ctx.Done():
				return
			}
			continue
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

// inherit takes over what the run before has read, for it can have been this one's: what
// the API gives as a container's log is that of its run by then.
func (s *stream) inherit() {
	for _, other := range s.after {
		if other.container == s.container && !other.last.Before(s.last) {
			s.last, s.same = other.last, other.same
		}
	}
	s.floor = s.last
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
func (s *stream) copy(ctx context.Context, place int32, over bool) error {
	if place == passed {
		return errPassed
	}
	// One that is over isn't followed: by now the log may be the next run's.
	options := &corev1.PodLogOptions{Container: s.container, Follow: !over, Previous: place == previous, Timestamps: true}
	from := s.last
	if place == previous {
		from = s.floor // what was read may have been another run's
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
	if errors.Is(why, errPassed) && !s.last.IsZero() {
		return nil
	}
	return why
}

// copyFrom copies from a log what hasn't been read yet.
func (s *stream) copyFrom(body io.Reader) error {
	known, skip, least := s.last, s.same, s.first
	r := bufio.NewReaderSize(body, maxLine)
	var at time.Time // of the line
	for begins, wanted, drop := true, true, 0; ; {
		piece, err := r.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) && !errors.Is(err, io.EOF) {
			return err // what came of a line before it broke off comes again
		}
		first := begins
		if first && len(piece) > 0 {
			at, piece = cutTime(piece)
			wanted, drop = s.read(at, known, &skip)
			if wanted && !at.IsZero() && at.Before(least) {
				least = at
			}
			first = drop == 0
		}
		begins = err == nil
		dropped := min(drop, len(piece))
		drop, piece = drop-dropped, piece[dropped:]
		if wanted && len(piece) > 0 {
			if err := s.write(piece, first, err); err != nil {
				return err
			}
			switch {
			case at.IsZero(), !at.Equal(s.last): // which can't be told when it comes again, or won't
			case begins:
				s.part = 0
			default:
				s.part += len(piece)
			}
		}
		if errors.Is(err, io.EOF) {
			if !least.IsZero() {
				s.first = least
			}
			return nil
		}
	}
}

// read counts a line of that time as read, and says whether there is something new in
// it, behind so many bytes. Known is how far an earlier reading came, skip how many
// lines of exactly that time it had. What is older than all that was read is new, too:
// that was the next run's.
func (s *stream) read(at, known time.Time, skip *int) (wanted bool, drop int) {
	switch {
	case at.IsZero():
		return true, 0
	case at.Before(known):
		return at.Before(s.first) && at.After(s.floor), 0
	case at.Equal(known) && *skip > 0:
		*skip--
		brokeOff := *skip == 0 && s.part > 0 // the last of them
		return brokeOff, s.part
	case at.Equal(s.last):
		s.same++
	default:
		s.last, s.same = at, 1
		if s.first.IsZero() {
			s.first = at
		}
	}
	s.part = 0
	return true, 0
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
