package etcd

import (
	"errors"
	"io"
	"sync/atomic"
	"testing"

	"github.com/go-logr/logr/funcr"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
)

func TestFatalEndsTheGoroutineOnly(t *testing.T) {
	fatal := newFatalSignal()
	log := newLogger(funcr.New(func(string, string) {}, funcr.Options{}), fatal, new(atomic.Bool))
	if fatal.Err() != nil {
		t.Fatal("failed before it failed")
	}
	wentOn := make(chan bool, 1)
	go func() {
		defer close(wentOn)
		log.Fatal("failed to save", zap.Error(io.ErrShortWrite))
		wentOn <- true
	}()
	if <-wentOn {
		t.Error("the code after Fatal ran")
	}
	<-fatal.done
	if err := fatal.Err(); !errors.Is(err, io.ErrShortWrite) || err.Error() != "etcd: failed to save: short write" {
		t.Errorf("got %v", err)
	}
	fatal.set(io.EOF)
	if !errors.Is(fatal.Err(), io.ErrShortWrite) {
		t.Error("the first reason was replaced")
	}
}

func TestLevels(t *testing.T) {
	var lines []string
	sink := funcr.New(func(prefix, args string) { lines = append(lines, args) }, funcr.Options{Verbosity: warnVerbosity})
	quiet := new(atomic.Bool)
	log := newLogger(sink, newFatalSignal(), quiet).With(zap.String("k", "v"))
	log.Info("info")
	log.Warn("warn")
	log.Error("error")
	log.Error("failed to update storage version")
	quiet.Store(true)
	log.Error("closing")
	want := []string{
		`"level"=2 "msg"="warn" "k"="v"`,
		`"msg"="error" "error"=null "k"="v"`,
		`"level"=2 "msg"="failed to update storage version" "k"="v"`,
		`"level"=2 "msg"="closing" "k"="v"`,
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}
