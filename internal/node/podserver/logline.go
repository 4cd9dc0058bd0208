package podserver

import (
	"bytes"
	"time"
)

// A line of a log in the CRI's format: time, stream, tags and content.
//
//	2016-10-06T00:17:09.669794202Z stdout P the beginning of a long line,
//	2016-10-06T00:17:09.669794203Z stdout F and its end
type logLine struct {
	time    []byte // RFC 3339 with nanoseconds
	stderr  bool
	content []byte // with its newline, unless more of the line is to come
}

const (
	timeIn  = time.RFC3339Nano
	timeOut = "2006-01-02T15:04:05.000000000Z07:00" // as kubectl logs --timestamps has always printed it
)

// parseLine splits a line; false if it isn't of the format.
func parseLine(line []byte) (logLine, bool) {
	when, rest, ok1 := bytes.Cut(line, []byte{' '})
	stream, rest, ok2 := bytes.Cut(rest, []byte{' '})
	tags, content, ok3 := bytes.Cut(rest, []byte{' '})
	if !ok1 || !ok2 || !ok3 {
		return logLine{}, false
	}
	l := logLine{time: when, content: content}
	switch string(stream) {
	case "stdout":
	case "stderr":
		l.stderr = true
	default:
		return logLine{}, false
	}
	if first, _, _ := bytes.Cut(tags, []byte{':'}); string(first) == "P" {
		l.content = bytes.TrimSuffix(content, []byte{'\n'})
	}
	return l, true
}

// lineWriter writes the lines that the options ask for.
type lineWriter struct {
	options logOptions
	out     *flushWriter
	left    int64 // bytes that may yet be written; -1: any number
	fresh   bool  // the output is at the beginning of a line
}

// write writes a line of the log; errLimit once nothing more may be written.
// Lines that aren't of the format are left out, as the kubelet does.
func (w *lineWriter) write(raw []byte) error {
	line, ok := parseLine(raw)
	if !ok || (line.stderr && !w.options.stderr) || (!line.stderr && !w.options.stdout) {
		return nil
	}
	if w.options.timestamps || !w.options.since.IsZero() {
		at, err := time.Parse(timeIn, string(line.time))
		if err != nil || at.Before(w.options.since) {
			return nil
		}
		if w.options.timestamps && w.fresh {
			if err := w.put(at.AppendFormat(nil, timeOut+" ")); err != nil {
				return err
			}
		}
	}
	if err := w.put(line.content); err != nil {
		return err
	}
	w.fresh = len(line.content) == 0 || line.content[len(line.content)-1] == '\n'
	return nil
}

func (w *lineWriter) put(data []byte) error {
	if w.left >= 0 && int64(len(data)) >= w.left {
		if _, err := w.out.Write(data[:w.left]); err != nil {
			return err
		}
		w.left = 0
		return errLimit
	}
	n, err := w.out.Write(data)
	if w.left >= 0 {
		w.left -= int64(n)
	}
	return err
}
