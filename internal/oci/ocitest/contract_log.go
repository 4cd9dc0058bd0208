//go:build node

package ocitest

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"

	"errand.dev/errand/internal/oci"
)

// waitLog waits until a container has logged a line.
func (f *Fixture) waitLog(id, line string) {
	f.Helper()
	for {
		if data, _ := os.ReadFile(f.Host.Log(id)); strings.Contains(string(data), " F "+line+"\n") {
			return
		}
		if f.Ctx.Err() != nil {
			f.Fatalf("%s hasn't logged %q", id, line)
		}
		time.Sleep(time.Millisecond)
	}
}

func logLines(f *Fixture) {
	maxLine := func(r *oci.RunRequest) { r.LogMaxLine = 10 }
	_, got := f.Sh("echo one; echo 1234567890abc; printf end", maxLine)
	want := []Record{{"stdout", "F", "one"}, {"stdout", "P", "1234567890"}, {"stdout", "F", "abc"}, {"stdout", "P", "end"}}
	if diff := cmp.Diff(want, got); diff != "" {
		f.Error(diff)
	}
	// Order between the streams is kept as far as the writer lets some time pass.
	_, got = f.Sh("echo a; sleep 0.05; echo b >&2; sleep 0.05; echo c", nil)
	if diff := cmp.Diff([]Record{{"stdout", "F", "a"}, {"stderr", "F", "b"}, {"stdout", "F", "c"}}, got); diff != "" {
		f.Error(diff)
	}
	_, got = f.Sh("head -c 40000 /dev/zero | tr '\\0' x; echo; true", nil, withZero)
	var lengths []string
	for _, r := range got {
		lengths = append(lengths, r.Tag+strconv.Itoa(len(r.Content)))
	}
	if want := "P16384 P16384 F7232"; strings.Join(lengths, " ") != want {
		f.Errorf("a line of 40000: %v, want %s", lengths, want)
	}
	if _, got = f.Sh("true", nil); len(got) > 0 {
		f.Errorf("silent container: %v", got)
	}
	id := f.Start([]string{"echo", "x"}, func(r *oci.RunRequest) { r.LogPath = "" })
	if f.WaitExit(id); exists(f.Host.Log(id)) {
		f.Error("a log that nobody asked for")
	}
}

func logBinary(f *Fixture) {
	_, got := f.Sh(`printf '\000\377\r\n\n\tx'`, nil)
	want := []Record{{"stdout", "F", "\x00\xff\r"}, {"stdout", "F", ""}, {"stdout", "P", "\tx"}}
	if diff := cmp.Diff(want, got); diff != "" {
		f.Error(diff)
	}
}

func logReopen(f *Fixture) {
	id := f.Start([]string{"sh", "-c", "i=0; while :; do echo $i; i=$((i+1)); sleep 0.001; done"}, nil)
	var files []string
	for i := range 5 {
		f.waitSome(f.Host.Log(id))
		files = append(files, f.Host.Log(id)+"."+strconv.Itoa(i))
		f.must(os.Rename(f.Host.Log(id), files[i]))
		if err := f.ReopenLog(f.Ctx, id); err != nil {
			f.Fatal(err)
		}
	}
	if err := f.Signal(f.Ctx, id, 9, false); err != nil {
		f.Fatal(err)
	}
	f.WaitExit(id)
	next := 0
	for _, file := range append(files, f.Host.Log(id)) {
		for _, r := range f.Records(file) {
			if r.Content != strconv.Itoa(next) {
				f.Fatalf("%s: %v, want %d", filepath.Base(file), r, next)
			}
			next++
		}
	}
}

func (f *Fixture) waitSome(path string) {
	f.Helper()
	for {
		if st, err := os.Stat(path); err == nil && st.Size() > 0 {
			return
		}
		if f.Ctx.Err() != nil {
			f.Fatalf("%s is empty", path)
		}
		time.Sleep(time.Millisecond)
	}
}

// logFlood: all of a large output is in the log when the exit is announced.
func logFlood(f *Fixture) {
	const lines = 200000
	id := f.Start([]string{"seq", strconv.Itoa(lines)}, nil)
	f.WaitExit(id)
	records := f.Records(f.Host.Log(id))
	if len(records) != lines || records[lines-1].Content != strconv.Itoa(lines) {
		f.Errorf("%d records", len(records))
	}
}

// logOfEscapedProcess: somebody outside the container holds its output open, and writes to it later.
func logOfEscapedProcess(f *Fixture) {
	id := f.ID()
	pid, err := f.TryStart(id, []string{"sh", "-c", "printf 'first\\nunfinished'; sleep 1000"}, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.waitLog(id, "first")
	held, err := os.OpenFile("/proc/"+strconv.Itoa(pid)+"/fd/1", os.O_WRONLY, 0)
	if err != nil {
		f.Fatal(err)
	}
	defer held.Close()
	f.signal(id, 9, false)
	f.WaitExit(id) // doesn't wait for the pipe's end
	want := []Record{{"stdout", "F", "first"}, {"stdout", "P", "unfinished"}}
	if diff := cmp.Diff(want, f.Records(f.Host.Log(id))); diff != "" {
		f.Error(diff)
	}
	if _, err := held.WriteString("late\n"); err != nil {
		f.Error(err)
	}
	f.waitLog(id, "late")
}

// logUnwritable: a full disk costs log records, not the container.
func logUnwritable(f *Fixture) {
	id := f.Start([]string{"sh", "-c", "yes | head -c 1000000; exit 5"}, func(r *oci.RunRequest) { r.LogPath = "/dev/full" })
	if e := f.WaitExit(id); e.ExitCode != 5 {
		f.Errorf("%+v", e)
	}
	_, err := f.TryStart(f.ID(), []string{"true"}, func(r *oci.RunRequest) { r.LogPath = f.Dir + "/no/such/dir" })
	if err == nil || !strings.Contains(err.Error(), "/no/such/dir") {
		f.Errorf("no directory: %v", err)
	}
}

func contains(data []byte, s string) bool { return bytes.Contains(data, []byte(s)) }
