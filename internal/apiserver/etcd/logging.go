package etcd

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"k8s.io/klog/v2"
)

// etcd talks much at its info level and warns of what is normal for a lone
// member (no TLS on a unix socket, a slow disk): both are for those who look.
const (
	infoVerbosity = 4
	warnVerbosity = 2
)

// fatalSignal records the first reason for which etcd gave up.
type fatalSignal struct {
	once sync.Once
	done chan struct{}
	err  error
}

func newFatalSignal() *fatalSignal { return &fatalSignal{done: make(chan struct{})} }

func (f *fatalSignal) set(err error) {
	f.once.Do(func() {
		f.err = err
		close(f.done)
	})
}

// Err returns nil until set was called.
func (f *fatalSignal) Err() error {
	select {
	case <-f.done:
		return f.err
	default:
		return nil
	}
}

// OnWrite implements zapcore.CheckWriteHook for the panic and fatal levels:
// etcd's calls to these assume that nothing runs after them, and by default they
// would end the process without a word to the other components.
func (f *fatalSignal) OnWrite(entry *zapcore.CheckedEntry, fields []zapcore.Field) {
	f.set(fatalError(entry.Entry, fields))
	runtime.Goexit()
}

// fatalError keeps the cause's identity for errors.Is.
func fatalError(entry zapcore.Entry, fields []zapcore.Field) error {
	for _, field := range fields {
		if err, ok := field.Interface.(error); ok && field.Type == zapcore.ErrorType {
			return fmt.Errorf("etcd: %s: %w", entry.Message, err)
		}
	}
	return errors.New("etcd: " + entry.Message)
}

// newLogger routes etcd's log to klog. Once quiet is set, errors count as
// chatter: etcd reports each of its listeners' ends as one when it is closed.
func newLogger(log klog.Logger, fatal *fatalSignal, quiet *atomic.Bool) *zap.Logger {
	return zap.New(&klogCore{log: log.WithName("etcd"), quiet: quiet}, zap.WithFatalHook(fatal), zap.WithPanicHook(fatal))
}

// benignErrors are entries that etcd writes at its error level for a healthy
// lone member: the storage version is written a few seconds after the first
// start, once there is a term to write beside it.
var benignErrors = map[string]bool{"failed to update storage version": true}

// klogCore writes zap's entries to klog.
type klogCore struct {
	log    klog.Logger
	quiet  *atomic.Bool
	fields []zapcore.Field
}

func (c *klogCore) Enabled(level zapcore.Level) bool {
	switch {
	case level >= zapcore.ErrorLevel:
		return true
	case level == zapcore.WarnLevel:
		return c.log.V(warnVerbosity).Enabled()
	default:
		return level == zapcore.InfoLevel && c.log.V(infoVerbosity).Enabled()
	}
}

func (c *klogCore) With(fields []zapcore.Field) zapcore.Core {
	return &klogCore{log: c.log, quiet: c.quiet, fields: append(c.fields[:len(c.fields):len(c.fields)], fields...)}
}

func (c *klogCore) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(entry.Level) {
		return checked.AddCore(entry, c)
	}
	return checked
}

func (c *klogCore) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	enc := zapcore.NewMapObjectEncoder()
	for _, field := range append(c.fields[:len(c.fields):len(c.fields)], fields...) {
		field.AddTo(enc)
	}
	keysAndValues := make([]any, 0, 2*len(enc.Fields))
	for key, value := range enc.Fields {
		keysAndValues = append(keysAndValues, key, value)
	}
	// What is fatal is recorded, and told by whoever asks for it.
	minor := entry.Level > zapcore.ErrorLevel ||
		entry.Level == zapcore.ErrorLevel && (c.quiet.Load() || benignErrors[entry.Message])
	switch {
	case entry.Level >= zapcore.ErrorLevel && !minor:
		c.log.Error(nil, entry.Message, keysAndValues...)
	case entry.Level >= zapcore.WarnLevel:
		c.log.V(warnVerbosity).Info(entry.Message, keysAndValues...)
	default:
		c.log.V(infoVerbosity).Info(entry.Message, keysAndValues...)
	}
	return nil
}

func (c *klogCore) Sync() error { return nil }
