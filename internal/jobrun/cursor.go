package jobrun

import (
	"bytes"
	"time"
)

// cursor is how far the log of a run has been read. A log can be asked for from a
// whole second on, so that lines come twice, and what the API gives as a run's log
// may be the next run's by then: lines are told apart by their times.
type cursor struct {
	// Lines have been read from the time first up to the time last: so many of exactly
	// that time, and of the last of them so many bytes, if not all.
	first, last time.Time
	same, part  int
	// floor is up to when the run before has been read. Until a line of this run has
	// been, so is last.
	floor time.Time
}

// behind puts the cursor where that of the run before is: what was read of that can
// have been this run's.
func (c *cursor) behind(before *cursor) {
	if !before.last.Before(c.last) {
		c.last, c.same = before.last, before.same
	}
	c.floor = c.last
}

// pass is one reading of a log, from a time on that isn't behind the cursor. What it
// finds new moves the cursor.
type pass struct {
	*cursor
	known time.Time // how far earlier passes came
	skip  int       // lines of exactly that time that they had, and that haven't come yet
	least time.Time // the first line's time, of this and earlier passes
	// The line that is being read.
	at     time.Time
	wanted bool
	drop   int // bytes of it that an earlier pass had
}

func (c *cursor) pass() *pass {
	return &pass{cursor: c, known: c.last, skip: c.same, least: c.first}
}

// begin takes the first piece of a line, and returns it without its time; fresh says
// what is new in it and in those that follow. Starts is false if an earlier pass had
// the line's start.
func (p *pass) begin(piece []byte) (rest []byte, starts bool) {
	p.at, rest = cutTime(piece)
	p.wanted, p.drop = p.line()
	if p.wanted && !p.at.IsZero() && p.at.Before(p.least) {
		p.least = p.at
	}
	return rest, p.drop == 0
}

// line counts the line as read, and says whether there is something new in it, behind
// so many bytes. What is older than all that was read is new, too: that was the next
// run's.
func (p *pass) line() (wanted bool, drop int) {
	switch {
	case p.at.IsZero():
		return true, 0
	case p.at.Before(p.known):
		return p.at.Before(p.first) && p.at.After(p.floor), 0
	case p.at.Equal(p.known) && p.skip > 0:
		p.skip--
		brokeOff := p.skip == 0 && p.part > 0 // the last of them
		return brokeOff, p.part
	case p.at.Equal(p.last):
		p.same++
	default:
		p.last, p.same = p.at, 1
		if p.first.IsZero() {
			p.first = p.at
		}
	}
	p.part = 0
	return true, 0
}

// fresh returns what of a piece of the line is new.
func (p *pass) fresh(piece []byte) []byte {
	if !p.wanted {
		return nil
	}
	dropped := min(p.drop, len(piece))
	p.drop -= dropped
	return piece[dropped:]
}

// wrote takes that so many bytes of the line are had, and whether its end is.
func (p *pass) wrote(n int, whole bool) {
	switch {
	case p.at.IsZero(), !p.at.Equal(p.last): // which can't be told when it comes again, or won't
	case whole:
		p.part = 0
	default:
		p.part += n
	}
}

// end takes that the log was read to its end.
func (p *pass) end() {
	if !p.least.IsZero() {
		p.first = p.least
	}
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
