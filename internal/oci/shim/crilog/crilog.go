// Package crilog formats container output as the CRI's log lines:
//
//	2026-01-02T15:04:05.000000000Z stdout F a whole line
//	2026-01-02T15:04:05.000000000Z stderr P the part of a line that goes on in the next record of this stream
//
// It owns the format and the splitting of lines, and keeps at most one unfinished line. It doesn't own files: it appends
// to a buffer of the caller's.
package crilog

import (
	"bytes"
	"time"
)

// DefaultMaxLine is the longest line content in bytes that is written as one record unless told otherwise.
const DefaultMaxLine = 16 << 10

// The stream names of the format.
const (
	Stdout = "stdout"
	Stderr = "stderr"
)

// timeFormat is RFC3339Nano in UTC with all nine digits, so that all records' contents start in one column.
const timeFormat = "2006-01-02T15:04:05.000000000Z"

// MaxRecord is the longest record in bytes for content of n bytes.
func MaxRecord(n int) int { return len(timeFormat) + len(" stdout P ") + n + 1 }

// Splitter turns one stream's output, in pieces of any size, into records. The zero value isn't usable: see New.
type Splitter struct {
	stream  string
	maxLine int
	rest    []byte // of the line that hasn't ended yet: shorter than or equal to maxLine
}

// New returns the splitter of a stream (Stdout or Stderr). Lines of more than maxLine bytes (0 = DefaultMaxLine) are
// split into records of exactly maxLine.
func New(stream string, maxLine int) *Splitter {
	if maxLine <= 0 {
		maxLine = DefaultMaxLine
	}
	return &Splitter{stream: stream, maxLine: maxLine}
}

// Append appends to dst the records that chunk completes, and returns how many bytes of chunk it took: it stops early
// once dst is longer than limit (even before the first byte), to be called again with the rest of chunk. now is the time of all of them.
func (s *Splitter) Append(dst, chunk []byte, now time.Time, limit int) ([]byte, int) {
	var stamp [len(timeFormat)]byte
	ts := now.UTC().AppendFormat(stamp[:0], timeFormat)
	taken := 0
	for len(chunk) > 0 && len(dst) <= limit {
		// One byte more than fits tells whether a line of exactly maxLine bytes ends there.
		window := chunk[:min(len(chunk), s.maxLine-len(s.rest)+1)]
		end := bytes.IndexByte(window, '\n')
		switch {
		case end >= 0:
			dst = s.record(dst, ts, 'F', window[:end])
			end++
		case len(s.rest)+len(window) > s.maxLine:
			end = len(window) - 1
			dst = s.record(dst, ts, 'P', window[:end])
		default:
			end = len(window)
			s.rest = append(s.rest, window...)
		}
		chunk = chunk[end:]
		taken += end
	}
	return dst, taken
}

// Flush appends the unfinished line, if there is one, as a partial record: the stream has ended without a newline, and
// who reads the log must not see one.
func (s *Splitter) Flush(dst []byte, now time.Time) []byte {
	if len(s.rest) == 0 {
		return dst
	}
	var stamp [len(timeFormat)]byte
	return s.record(dst, now.UTC().AppendFormat(stamp[:0], timeFormat), 'P', nil)
}

func (s *Splitter) record(dst, ts []byte, tag byte, content []byte) []byte {
	dst = append(dst, ts...)
	dst = append(dst, ' ')
	dst = append(dst, s.stream...)
	dst = append(dst, ' ', tag, ' ')
	dst = append(dst, s.rest...)
	dst = append(dst, content...)
	dst = append(dst, '\n')
	// Most containers print short whole lines: don't let each hold a buffer for the longest it ever left unfinished.
	if cap(s.rest) > 1<<10 {
		s.rest = nil
	}
	s.rest = s.rest[:0]
	return dst
}
