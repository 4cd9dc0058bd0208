package images

import (
	"io"

	"github.com/go-logr/logr"
	"github.com/sirupsen/logrus"
)

// logEntry makes a logger for containerd's libraries that writes into logger. Their informational lines are chatter here, and
// what they call an error comes back to the caller as an error too: hence nothing of theirs shows at the default level.
func logEntry(logger logr.Logger) *logrus.Entry {
	l := logrus.New()
	l.SetOutput(io.Discard)
	switch {
	case logger.V(5).Enabled():
		l.SetLevel(logrus.DebugLevel)
	case logger.V(4).Enabled():
		l.SetLevel(logrus.InfoLevel)
	default:
		l.SetLevel(logrus.WarnLevel)
	}
	l.AddHook(logHook{logger})
	return logrus.NewEntry(l)
}

// quietLibraries keeps off stderr what containerd's and podman's libraries write past the logger in the context: into logrus's global
// one, which nothing else here uses.
func quietLibraries() { logrus.SetLevel(logrus.ErrorLevel) }

type logHook struct{ logger logr.Logger }

// Levels implements logrus.Hook.
func (logHook) Levels() []logrus.Level { return logrus.AllLevels }

// Fire implements logrus.Hook.
func (h logHook) Fire(e *logrus.Entry) error {
	level := 2
	if e.Level >= logrus.InfoLevel {
		level = 4
	}
	if e.Level >= logrus.DebugLevel {
		level = 5
	}
	values := make([]any, 0, 2*len(e.Data))
	for k, v := range e.Data {
		values = append(values, k, v)
	}
	h.logger.V(level).Info(e.Message, values...)
	return nil
}
