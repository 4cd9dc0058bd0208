package podserver

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/fsnotify/fsnotify"
)

// errLimit tells that limitBytes have been written.
var errLimit = errors.New("limit reached")

// copyLog writes a log to out. Following, it goes on until the container has
// ended and all that it wrote is copied, or ctx ends; a log that is rotated is
// followed into the next file.
func (s *Server) copyLog(ctx context.Context, log *logFile, id containerID, o logOptions, out *flushWriter) error {
	c := &copier{log: log, lines: lineWriter{options: o, out: out, left: o.limit, fresh: true}, most: -1}
	if o.follow {
		stop, err := c.watch(ctx, s.ends, id.id)
		if err != nil {
			return err
		}
		defer stop()
	} else {
		c.most = o.tail
	}
	if err := seekTail(log.file, o.tail); err != nil {
		return err
	}
	err := c.run(ctx)
	if errors.Is(err, errLimit) {
		err = nil
	}
	return errors.Join(err, out.flush())
}

// copier is one copying of a log.
type copier struct {
	log   *logFile
	lines lineWriter
	most  int64 // lines to copy; -1: all

	changes *fsnotify.Watcher // nil: not following
	ended   <-chan struct{}
	over    bool // the container has ended; what is there is all there will be
	rotated bool // the open file isn't the log any more
}

// watch begins to watch for what following waits for, before anything is read,
// so that nothing is missed. stop ends it.
func (c *copier) watch(ctx context.Context, ends *endings, id string) (stop func(), err error) {
	changes, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watch log: %w", err)
	}
	if err := changes.Add(filepath.Dir(c.log.path)); err != nil {
		return nil, errors.Join(fmt.Errorf("watch log: %w", err), changes.Close())
	}
	ended, forget := ends.watch(ctx, id)
	c.changes, c.ended = changes, ended
	return func() {
		forget()
		_ = changes.Close() // frees the descriptor whatever it says
	}, nil
}

// run copies lines until there are no more to come.
func (c *copier) run(ctx context.Context) error {
	reader := bufio.NewReaderSize(c.log.file, 64<<10)
	var partial []byte // a line of which only the beginning is there
	for c.most != 0 {
		chunk, err := reader.ReadSlice('\n')
		switch {
		case err == nil && len(partial) == 0:
			err = c.line(chunk)
		case err == nil:
			err = c.line(append(partial, chunk...))
			partial = partial[:0]
		case errors.Is(err, bufio.ErrBufferFull):
			partial = append(partial, chunk...)
			continue
		case errors.Is(err, io.EOF):
			partial = append(partial, chunk...)
			var next step
			if next, err = c.atEnd(ctx); err != nil || next == readOn {
				break
			}
			// Nothing is added to this file any more, not even a last line's end.
			if err = c.remainder(partial); err != nil || next == finished {
				return err
			}
			partial = partial[:0]
			var from io.Reader
			if from, err = c.log.reader(); err == nil {
				reader.Reset(from)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *copier) line(line []byte) error {
	if c.most > 0 {
		c.most--
	}
	return c.lines.write(line)
}

// remainder copies a last line without an end, as a crash leaves it.
func (c *copier) remainder(partial []byte) error {
	if len(partial) == 0 {
		return nil
	}
	return c.line(partial)
}

// step is what to do at the end of what is there.
type step int

const (
	finished step = iota
	readOn
	readNext // another file is open now
)

// atEnd is called at the end of what is there. If need be it waits for more. What
// the container wrote before it ended, or before the log was rotated, is read
// before that is acted upon.
func (c *copier) atEnd(ctx context.Context) (step, error) {
	switch {
	case c.changes == nil:
		return finished, nil
	case c.rotated:
		moved, err := c.log.advance()
		if c.rotated = !moved; err != nil || moved {
			return readNext, err
		}
	case c.log.replaced():
		c.rotated = true
		return readOn, nil
	}
	if c.over {
		return finished, nil
	}
	if err := c.lines.out.flush(); err != nil {
		return finished, err
	}
	return readOn, c.wait(ctx)
}

// wait waits until there may be more, or it is known that there won't.
func (c *copier) wait(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.ended:
			c.over = true
			return nil
		case err := <-c.changes.Errors:
			// An overflow loses events, so look at everything.
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				return fmt.Errorf("watch log: %w", err)
			}
			return nil
		case event := <-c.changes.Events:
			if event.Has(fsnotify.Write) || event.Has(fsnotify.Create) && filepath.Base(event.Name) == filepath.Base(c.log.path) {
				return nil
			}
		}
	}
}

// tailBlock is how much is read at a time looking for the last lines.
const tailBlock = 64 << 10

// seekTail moves to where the last n lines begin, to the start if n is negative.
func seekTail(f *os.File, n int64) error {
	if n < 0 {
		return nil
	}
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil || n == 0 {
		return err
	}
	block := make([]byte, tailBlock)
	for at := end; at > 0; {
		size := min(at, tailBlock)
		at -= size
		if _, err := f.ReadAt(block[:size], at); err != nil {
			return err
		}
		for i := size - 1; i >= 0; i-- {
			if block[i] != '\n' || at+i == end-1 { // the last line's own end begins none
				continue
			}
			if n--; n == 0 {
				_, err := f.Seek(at+i+1, io.SeekStart)
				return err
			}
		}
	}
	_, err = f.Seek(0, io.SeekStart)
	return err
}
