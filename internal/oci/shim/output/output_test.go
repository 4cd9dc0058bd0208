package output

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"errand.dev/errand/internal/oci/shim/crilog"
)

func newPump(t testing.TB) *Pump {
	t.Helper()
	p, err := NewPump()
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = p.Run() }() // for as long as the test process lives
	return p
}

// source gives the writing ends of an Output's streams.
func open(t testing.TB, p *Pump, c Config) (o *Output, stdout, stderr *os.File) {
	t.Helper()
	var ends [4]int
	for i := 0; i < 4; i += 2 {
		if err := unix.Pipe2(ends[i:i+2], unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
	}
	c.Stdout, c.Stderr = ends[0], ends[2]
	o, err := p.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	stdout, stderr = os.NewFile(uintptr(ends[1]), "stdout"), os.NewFile(uintptr(ends[3]), "stderr")
	t.Cleanup(func() {
		o.Close()
		stdout.Close()
		stderr.Close()
	})
	return o, stdout, stderr
}

func newLog(t testing.TB) (*LogFile, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log")
	l, err := OpenLog(path, LogLimits{})
	if err != nil {
		t.Fatal(err)
	}
	return l, path
}

// contents strips a log's time stamps.
func contents(t testing.TB, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for line := range strings.Lines(string(data)) {
		_, rest, _ := strings.Cut(line, " ")
		b.WriteString(rest)
	}
	return b.String()
}

func write(t testing.TB, f *os.File, s string) {
	t.Helper()
	if _, err := f.WriteString(s); err != nil {
		t.Fatal(err)
	}
}

func TestFinishTakesAllThatWasWritten(t *testing.T) {
	log, path := newLog(t)
	o, stdout, stderr := open(t, newPump(t), Config{Log: log})
	write(t, stdout, "out\nunfin")
	write(t, stdout, "ished")
	write(t, stderr, "err\n")
	o.Finish() // although the pipes are open
	got := contents(t, path)
	for _, want := range []string{"stdout F out\n", "stdout P unfinished\n", "stderr F err\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %q", want, got)
		}
	}
}

// What was written to one stream before the other stays before it, even if nobody looked in between.
func TestOrderBetweenStreams(t *testing.T) {
	for name, end := range map[string]func(p *Pump, outputs []*Output){
		"pumped": func(p *Pump, outputs []*Output) {
			go func() { _ = p.Run() }()
			for _, o := range outputs {
				<-o.eof
			}
		},
		"finished before the pump comes": func(_ *Pump, outputs []*Output) {
			for _, o := range outputs {
				o.Finish()
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := NewPump()
			if err != nil {
				t.Fatal(err)
			}
			var outputs []*Output
			var paths, wants []string
			for i := range 100 {
				log, path := newLog(t)
				o, stdout, stderr := open(t, p, Config{Log: log})
				order := []*os.File{stdout, stderr}
				if i%2 == 1 {
					order = []*os.File{stderr, stdout}
				}
				want := ""
				for _, f := range order {
					write(t, f, "x\n")
					want += f.Name() + " F x\n"
				}
				for _, f := range order {
					f.Close()
				}
				outputs, paths, wants = append(outputs, o), append(paths, path), append(wants, want)
			}
			end(p, outputs)
			for i, path := range paths {
				if got := contents(t, path); got != wants[i] {
					t.Errorf("output %d: %q, want %q", i, got, wants[i])
				}
			}
		})
	}
}

func TestFinishOfEndlessWriter(t *testing.T) {
	log, _ := newLog(t)
	o, stdout, _ := open(t, newPump(t), Config{Log: log})
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for line := []byte(strings.Repeat("x", 999) + "\n"); ; {
			select {
			case <-stop:
				return
			default:
				_, _ = stdout.Write(line)
			}
		}
	}()
	o.Finish() // returns
	close(stop)
	<-stopped
}

func TestEndOfStreams(t *testing.T) {
	log, path := newLog(t)
	o, stdout, stderr := open(t, newPump(t), Config{Log: log})
	write(t, stdout, "last")
	stdout.Close()
	stderr.Close()
	<-o.eof
	if got := contents(t, path); got != "stdout P last\n" {
		t.Errorf("%q", got)
	}
	o.Finish()
}

func TestReopenLog(t *testing.T) {
	log, path := newLog(t)
	o, stdout, _ := open(t, newPump(t), Config{Log: log})
	write(t, stdout, "one\n")
	o.Finish()
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := o.ReopenLog(); err != nil {
		t.Fatal(err)
	}
	write(t, stdout, "two\n")
	o.Finish()
	if got := contents(t, path+".1") + contents(t, path); got != "stdout F one\nstdout F two\n" {
		t.Errorf("%q", got)
	}
	if err := os.RemoveAll(filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}
	if err := o.ReopenLog(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	write(t, stdout, "still taken\n")
	o.Finish()
}

// TestTakeBack: what a full disk took of a record is taken back.
func TestTakeBack(t *testing.T) {
	log, path := newLog(t)
	defer log.Close()
	log.write([]byte("whole\n"))
	log.write([]byte("torn"))
	log.takeBack(len("torn"))
	log.write([]byte("next\n"))
	if data, err := os.ReadFile(path); err != nil || string(data) != "whole\nnext\n" {
		t.Errorf("%q, %v", data, err)
	}
}

func attach(t *testing.T, o *Output, stdout, stderr bool) (a *Attachment, outR, errR *os.File) {
	t.Helper()
	fds := [2]int{-1, -1}
	var readers [2]*os.File
	for i, want := range []bool{stdout, stderr} {
		if !want {
			continue
		}
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		if err := unix.SetNonblock(p[0], true); err != nil {
			t.Fatal(err)
		}
		readers[i] = os.NewFile(uintptr(p[0]), "reader")
		t.Cleanup(func() { readers[i].Close() })
		fds[i] = p[1]
	}
	a, err := o.Attach(fds[0], fds[1])
	if err != nil {
		t.Fatal(err)
	}
	return a, readers[0], readers[1]
}

func TestAttach(t *testing.T) {
	o, stdout, stderr := open(t, newPump(t), Config{})
	both, outR, errR := attach(t, o, true, true)
	one, outR2, _ := attach(t, o, true, false)
	none, _, _ := attach(t, o, false, false)
	write(t, stdout, "out")
	write(t, stderr, "err")
	o.Finish()
	for r, want := range map[io.Reader]string{outR: "out", errR: "err", outR2: "out"} {
		if got, err := io.ReadAll(r); err != nil || string(got) != want {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
	}
	for _, a := range []*Attachment{both, one, none} {
		<-a.Done()
	}
	if _, err := o.Attach(-1, -1); !errors.Is(err, ErrEnded) {
		t.Errorf("attach after the end: %v", err)
	}
}

// TestSlowReader: the writer waits for it, and it gets all.
func TestSlowReader(t *testing.T) {
	const size = 4 << 20
	o, stdout, _ := open(t, newPump(t), Config{})
	a, r, _ := attach(t, o, true, false)
	written := make(chan struct{})
	go func() {
		defer close(written)
		if _, err := stdout.Write(make([]byte, size)); err != nil {
			t.Error(err)
		}
	}()
	if n, err := io.ReadFull(r, make([]byte, size/2)); err != nil {
		t.Fatal(n, err)
	}
	select {
	case <-written:
		t.Error("the writer hasn't waited")
	default:
	}
	if n, err := io.ReadFull(r, make([]byte, size/2)); err != nil {
		t.Fatal(n, err)
	}
	<-written
	o.Finish()
	<-a.Done()
}

// TestReaderGone: neither detaching nor a closed pipe holds up the writer.
func TestReaderGone(t *testing.T) {
	for name, leave := range map[string]func(*Attachment, *os.File){
		"detached": func(a *Attachment, _ *os.File) { a.Detach() },
		"closed":   func(_ *Attachment, r *os.File) { r.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			o, stdout, _ := open(t, newPump(t), Config{})
			a, r, _ := attach(t, o, true, false)
			written := make(chan struct{})
			go func() {
				defer close(written)
				if _, err := stdout.Write(make([]byte, 1<<20)); err != nil {
					t.Error(err)
				}
			}()
			if _, err := r.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			leave(a, r)
			<-written
			<-a.Done()
		})
	}
}

// TestCloseWithPending: an attached reader that never reads doesn't keep anything.
func TestCloseWithPending(t *testing.T) {
	p := newPump(t)
	o, stdout, _ := open(t, p, Config{})
	a, _, _ := attach(t, o, true, false)
	go func() { _, _ = stdout.Write(make([]byte, 1<<20)) }()
	deadline := time.Now().Add(10 * time.Second)
	for stalled := false; !stalled && time.Now().Before(deadline); {
		o.mu.Lock()
		stalled = len(o.streams) > 0 && o.streams[0].stalled()
		o.mu.Unlock()
	}
	o.Finish()
	select {
	case <-a.Done():
		t.Error("done with output pending")
	default:
	}
	o.Close()
	<-a.Done()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.sources) != 0 {
		t.Errorf("%d sources are left", len(p.sources))
	}
}

func BenchmarkPump(b *testing.B) {
	for _, line := range []int{80, 4000} {
		b.Run(map[int]string{80: "short", 4000: "long"}[line], func(b *testing.B) {
			log, err := OpenLog(os.DevNull, LogLimits{})
			if err != nil {
				b.Fatal(err)
			}
			_, stdout, _ := open(b, newPump(b), Config{Log: log})
			chunk := []byte(strings.Repeat(strings.Repeat("x", line-1)+"\n", 1+crilog.DefaultMaxLine*4/line))
			b.SetBytes(int64(len(chunk)))
			for b.Loop() {
				if _, err := stdout.Write(chunk); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
