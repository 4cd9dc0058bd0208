package command

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/textlogger"
)

// courseOfThings is the verbosity from which on errors are shown that are part of it.
const courseOfThings = 2

// StartLogging sets up klog, which errand and upstream's libraries log with;
// nothing may be logged before. At verbosity 0 only warnings and errors are shown,
// and none any more once ctx ends: every loop of upstream's complains when its
// context goes, which is of no use to whoever pressed Ctrl-C. Errors that need
// nobody's attention are shown from verbosity 2 on.
func StartLogging(ctx context.Context, verbosity int, stderr io.Writer) error {
	fs := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(fs)
	for name, value := range map[string]string{
		"v":               strconv.Itoa(verbosity),
		"logtostderr":     "false",
		"stderrthreshold": "FATAL",
	} {
		if err := fs.Set(name, value); err != nil {
			return fmt.Errorf("set up logging: %w", err)
		}
	}
	w := &logWriter{to: stderr}
	if verbosity == 0 {
		context.AfterFunc(ctx, w.mute)
	}
	text := textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(w)))
	klog.SetLoggerWithOptions(logr.New(&logSink{LogSink: text.GetSink(), verbosity: verbosity}), klog.WriteKlogBuffer(func(line []byte) {
		// What klog has formatted itself begins with the letter of its severity.
		if show(line, verbosity) {
			w.Write(line) //nolint:errcheck // there is nowhere to say so
		}
	}))
	return nil
}

// show says whether a line that klog has formatted itself is for this verbosity.
func show(line []byte, verbosity int) bool {
	if verbosity < courseOfThings && isHarmless(errors.New(string(bytes.TrimSpace(line)))) {
		return false
	}
	return verbosity > 0 || line[0] != 'I'
}

// logSink leaves out what isn't for this verbosity. klog has looked at V already, but knows no errors that aren't.
type logSink struct {
	logr.LogSink
	verbosity int
}

func (s *logSink) Init(info logr.RuntimeInfo) {
	info.CallDepth++ // this sink's own frame
	s.LogSink.Init(info)
}

func (s *logSink) Enabled(int) bool { return s.verbosity > 0 }

// Info is here so that it is a frame, as Error is.
func (s *logSink) Info(level int, msg string, keysAndValues ...any) {
	s.LogSink.Info(level, msg, keysAndValues...)
}

func (s *logSink) Error(err error, msg string, keysAndValues ...any) {
	if s.verbosity < courseOfThings && isHarmless(err) {
		return
	}
	s.LogSink.Error(err, msg, keysAndValues...)
}

func (s *logSink) WithValues(keysAndValues ...any) logr.LogSink {
	return &logSink{s.LogSink.WithValues(keysAndValues...), s.verbosity}
}

func (s *logSink) WithName(name string) logr.LogSink {
	return &logSink{s.LogSink.WithName(name), s.verbosity}
}

// WithCallDepth implements logr.CallDepthLogSink, so that lines name the file that logs.
func (s *logSink) WithCallDepth(depth int) logr.LogSink {
	if l, ok := s.LogSink.(logr.CallDepthLogSink); ok {
		return &logSink{l.WithCallDepth(depth), s.verbosity}
	}
	return s
}

// logWriter passes on whole lines, one at a time, until it is muted.
type logWriter struct {
	mu    sync.Mutex
	to    io.Writer
	muted atomic.Bool
}

func (w *logWriter) mute() { w.muted.Store(true) }

func (w *logWriter) Write(p []byte) (int, error) {
	if w.muted.Load() {
		return len(p), nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.to.Write(p)
}
