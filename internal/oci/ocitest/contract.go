//go:build node

package ocitest

import (
	"context"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"errand.dev/errand/internal/oci"
	"errand.dev/errand/internal/slowness"
)

// Contract runs the suite. newRuntime returns a Runtime that keeps its state in h.Dir/run and is gone at the end of the test.
func Contract(t *testing.T, newRuntime func(t *testing.T, h *Host) oci.Runtime) {
	for name, test := range map[string]func(*Fixture){
		"ExitCodes":             exitCodes,
		"Signals":               signals,
		"StartErrors":           startErrors,
		"InvalidRequests":       invalidRequests,
		"CancelledRun":          cancelledRun,
		"DeleteKills":           deleteKills,
		"NotFound":              notFound,
		"EventsReplay":          eventsReplay,
		"Many":                  many,
		"OOMKilled":             oomKilled,
		"Update":                update,
		"SharedPIDNamespace":    sharedPIDNamespace,
		"LogLines":              logLines,
		"LogBinary":             logBinary,
		"LogReopen":             logReopen,
		"LogFlood":              logFlood,
		"LogOfEscapedProcess":   logOfEscapedProcess,
		"LogUnwritable":         logUnwritable,
		"Terminal":              terminal,
		"Stdin":                 stdin,
		"AttachOutput":          attachOutput,
		"AttachSlowReader":      attachSlowReader,
		"Exec":                  execPipes,
		"ExecTerminal":          execTerminal,
		"ExecErrors":            execErrors,
		"ExecEndsWithContainer": execEndsWithContainer,
		"ExecBound":             execBound,
		"ExecKilled":            execKilled,
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), slowness.Times(time.Minute))
			t.Cleanup(cancel)
			h := NewHost(t)
			f := &Fixture{T: t, Host: h, Ctx: ctx, Runtime: newRuntime(t, h)}
			test(f)
			f.DeleteAll()
		})
	}
}

// Fixture is a Runtime under test.
type Fixture struct {
	*testing.T
	*Host
	oci.Runtime
	Ctx    context.Context
	events <-chan oci.Event
	seen   map[string]oci.Event
}

// Start runs a container and returns its ID; an edit of the request may be nil.
func (f *Fixture) Start(args []string, request func(*oci.RunRequest), edits ...func(*specs.Spec)) string {
	f.Helper()
	id := f.ID()
	if _, err := f.TryStart(id, args, request, edits...); err != nil {
		f.Fatalf("run %v: %v", args, err)
	}
	return id
}

// TryStart runs a container of that ID.
func (f *Fixture) TryStart(id string, args []string, request func(*oci.RunRequest), edits ...func(*specs.Spec)) (int, error) {
	f.Helper()
	req := oci.RunRequest{ID: id, Bundle: f.Bundle(id, args, edits...), LogPath: f.Host.Log(id)}
	if request != nil {
		request(&req)
	}
	return f.Run(f.Ctx, req)
}

func (f *Fixture) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Run is the Runtime's (and not testing.T's).
func (f *Fixture) Run(ctx context.Context, req oci.RunRequest) (int, error) {
	return f.Runtime.Run(ctx, req)
}

// WaitExit waits for a container's exit event.
func (f *Fixture) WaitExit(id string) oci.Event {
	f.Helper()
	if f.events == nil {
		f.seen = map[string]oci.Event{}
		events, err := f.Events(f.Ctx)
		if err != nil {
			f.Fatal(err)
		}
		f.events = events
	}
	for {
		if e, ok := f.seen[id]; ok {
			return e
		}
		e, ok := <-f.events
		if !ok {
			f.Fatalf("no exit of %s: %v", id, f.Err())
		}
		if _, twice := f.seen[e.ID]; twice {
			f.Errorf("the exit of %s came twice", e.ID)
		}
		f.seen[e.ID] = e
	}
}

// Sh runs a shell script to its end and returns what it logged.
func (f *Fixture) Sh(script string, request func(*oci.RunRequest), edits ...func(*specs.Spec)) (oci.Event, []Record) {
	f.Helper()
	id := f.Start([]string{"sh", "-c", script}, request, edits...)
	e := f.WaitExit(id)
	return e, f.Records(f.Host.Log(id))
}

// DeleteAll deletes all containers.
func (f *Fixture) DeleteAll() {
	f.Helper()
	list, err := f.List(f.Ctx)
	if err != nil {
		f.Fatal(err)
	}
	for _, c := range list {
		if err := f.Delete(f.Ctx, c.ID); err != nil {
			f.Errorf("delete %s: %v", c.ID, err)
		}
	}
	if list, err = f.List(f.Ctx); err != nil || len(list) > 0 {
		f.Errorf("after deleting all there are %v, %v", list, err)
	}
}

// Record is a line of a CRI log.
type Record struct {
	Stream, Tag, Content string
}

var recordFormat = regexp.MustCompile(`^(\S+) (stdout|stderr) ([FP]) `)

// Records parses a CRI log.
func (f *Fixture) Records(path string) []Record {
	f.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	var records []Record
	for line := range strings.Lines(string(data)) {
		m := recordFormat.FindStringSubmatch(line)
		if m == nil || !strings.HasSuffix(line, "\n") {
			f.Fatalf("malformed log record %.100q", line)
		}
		if _, err := time.Parse(time.RFC3339Nano, m[1]); err != nil {
			f.Error(err)
		}
		records = append(records, Record{m[2], m[3], strings.TrimSuffix(line[len(m[0]):], "\n")})
	}
	return records
}

// gone waits for a process to have ended.
func (f *Fixture) gone(pid int) {
	f.Helper()
	for syscall.Kill(pid, 0) == nil {
		if f.Ctx.Err() != nil {
			f.Fatalf("process %d is still there", pid)
		}
		time.Sleep(time.Millisecond)
	}
}
