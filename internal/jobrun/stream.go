package jobrun

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
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
	// What has been read: up to the time last, of which so many lines; of the last of
	// them so many bytes, if not all.
	last time.Time
	same int
	part int
}

// Where the API has a run's log.
const (
	current  = iota // as the container's
	previous        // as that of its run before
	passed          // no more: what it has is other runs'
)

// errPassed is why the log of a run can't be read of which nothing had been.
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
		switch {
		case ctx.Err() != nil:
			return
		case over:
			// A pod can be deleted as soon as it has ended; what had been read by then was all.
			if err != nil && !(apierrors.IsNotFound(err) && wasRead) {
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
		if s.last.IsZero() {
			return errPassed
		}
		return nil
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
	known, skip := s.last, s.same
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
			first = drop == 0
		}
		begins = err == nil
		dropped := min(drop, len(piece))
		drop, piece = drop-dropped, piece[dropped:]
		if wanted && len(piece) > 0 {
			if err := s.write(piece, first, err); err != nil {
				return fmt.Errorf("write it: %w", err)
			}
			switch {
			case at.IsZero(): // which can't be told when it comes again
			case begins:
				s.part = 0
			default:
				s.part += len(piece)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
	}
}

// read counts a line of that time as read, and says whether there is something new in
// it, behind so many bytes. Known is how far an earlier reading came, skip how many
// lines of exactly that time it had.
func (s *stream) read(at, known time.Time, skip *int) (wanted bool, drop int) {
	switch {
	case at.IsZero():
		return true, 0
	case at.Before(known):
		return false, 0
	case at.Equal(known) && *skip > 0:
		*skip--
		brokeOff := *skip == 0 && s.part > 0 // the last of them
		return brokeOff, s.part
	case at.Equal(s.last):
		s.same++
	default:
		s.last, s.same = at, 1
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
