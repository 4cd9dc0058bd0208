package command

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strconv"
	"sync/atomic"

	"k8s.io/klog/v2"
)

// StartLogging sets up klog, which errand and upstream's libraries log with. At
// verbosity 0 only warnings and errors are shown, and none any more once ctx
// ends: every loop of upstream's complains when its context goes, which is of
// no use to whoever pressed Ctrl-C.
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
	// klog writes a message to the outputs of its own severity and of all below,
	// so one of them sees everything from its severity up.
	lowest := "INFO"
	if verbosity == 0 {
		lowest = "WARNING"
		context.AfterFunc(ctx, w.mute)
	}
	for _, severity := range []string{"INFO", "WARNING", "ERROR", "FATAL"} {
		if severity == lowest {
			klog.SetOutputBySeverity(severity, w)
		} else {
			klog.SetOutputBySeverity(severity, io.Discard)
		}
	}
	return nil
}

// logWriter passes on what it is given until it is muted.
type logWriter struct {
	to    io.Writer
	muted atomic.Bool
}

func (w *logWriter) mute() { w.muted.Store(true) }

func (w *logWriter) Write(p []byte) (int, error) {
	if w.muted.Load() {
		return len(p), nil
	}
	return w.to.Write(p)
}
