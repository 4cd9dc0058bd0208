package podserver

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"pgregory.net/rapid"
)

const sample = "2026-01-01T00:00:01.5Z stdout F one\n" +
	"2026-01-01T00:00:02Z stderr F two\n" +
	"2026-01-01T00:00:03Z stdout P thr\n" +
	"2026-01-01T00:00:03.1Z stdout F ee\n" +
	"garbage\n" +
	"2026-01-01T00:00:04Z stdout F \n" +
	"2026-01-01T00:00:05Z stdout F five\n"

func TestReadLogs(t *testing.T) {
	w := newWorld(t)
	w.write(t, sample)
	for query, want := range map[string]string{
		"":                               "one\ntwo\nthree\n\nfive\n",
		"tailLines=0":                    "",
		"tailLines=1":                    "five\n",
		"tailLines=2":                    "\nfive\n",
		"tailLines=99":                   "one\ntwo\nthree\n\nfive\n",
		"limitBytes=5":                   "one\nt",
		"limitBytes=4":                   "one\n",
		"stream=Stdout":                  "one\nthree\n\nfive\n",
		"stream=Stderr":                  "two\n",
		"stream=All&tailLines=1":         "five\n",
		"sinceTime=2026-01-01T00:00:03Z": "three\n\nfive\n",
		"sinceSeconds=1":                 "",
		"timestamps=true": "2026-01-01T00:00:01.500000000Z one\n2026-01-01T00:00:02.000000000Z two\n" +
			"2026-01-01T00:00:03.000000000Z three\n2026-01-01T00:00:04.000000000Z \n2026-01-01T00:00:05.000000000Z five\n",
		"timestamps=true&limitBytes=34": "2026-01-01T00:00:01.500000000Z one",
	} {
		if code, got := w.get(t, "/containerLogs/ns/p/c?"+query); code != http.StatusOK || got != want {
			t.Errorf("%s: %d %q\nwant %q", query, code, got, want)
		}
	}
}

// The log of a container that the runtime doesn't have any more is there as long
// as its file.
func TestLogsOfRemovedContainers(t *testing.T) {
	w := newWorld(t)
	const present, previous = "/containerLogs/ns/p/removed", "/containerLogs/ns/p/removed?previous=true"
	if code, got := w.get(t, present); code != http.StatusBadRequest || !strings.Contains(got, "failed to open log file") {
		t.Errorf("without a file: %d %s", code, got)
	}
	dir := filepath.Join(filepath.Dir(filepath.Dir(w.log)), "removed")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"0.log": "first", "1.log": "second"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("2026-01-01T00:00:01Z stdout F "+text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]string{present: "second\n", previous: "first\n"} {
		if code, got := w.get(t, path); code != http.StatusOK || got != want {
			t.Errorf("%s: %d %q, want %q", path, code, got, want)
		}
	}
}

func TestLogErrors(t *testing.T) {
	w := newWorld(t)
	for path, want := range map[string]string{
		"/containerLogs/ns/q/c":                  `404 pod "q" does not exist`,
		"/containerLogs/ns/p/x":                  `404 container "x" not found in pod "p"`,
		"/containerLogs/ns/p/other":              `400 container "other" in pod "p" is waiting to start: ContainerCreating`,
		"/containerLogs/ns/p/c?previous=true":    `400 previous terminated container "c" in pod "p" not found`,
		"/containerLogs/ns/p/c?tailLines=x":      `400 unable to decode query: tailLines="x"`,
		"/containerLogs/ns/p/c?limitBytes=0":     `422 limitBytes must be at least 1`,
		"/containerLogs/ns/p/c?stream=Stdin":     `400 invalid stream type "Stdin"`,
		"/exec/ns/p/x?command=ls&output=1":       `500 container not found ("x")`,
		"/exec/ns/q/c?command=ls&output=1":       `404 pod "q" does not exist`,
		"/exec/ns/p/uid-2/c?command=ls&output=1": `404 pod "p" with UID "uid-2" does not exist`,
		"/exec/ns/p/c?command=ls":                `400 you must specify at least 1 of stdin, stdout, stderr`,
		"/exec/ns/p/c?output=1":                  `400 you must specify at least one command`,
		"/exec/ns/p/c?command=ls&output=1":       `404 container is gone`,
		"/portForward/ns/q":                      `404 pod "q" does not exist`,
		"/healthz":                               `200 ok`,
	} {
		code, body := w.get(t, path)
		if got := fmt.Sprint(code, " ", body); got != want {
			t.Errorf("%s: %s\nwant %s", path, got, want)
		}
	}
	if code, body := w.get(t, "/pods"); code != http.StatusOK || !strings.Contains(body, `"uid":"uid-1"`) {
		t.Errorf("/pods: %d %s", code, body)
	}
}

func TestFollowUntilTheContainerEnds(t *testing.T) {
	w := newWorld(t)
	w.write(t, "2026-01-01T00:00:01Z stdout F one\n2026-01-01T00:00:02Z stdout F two\n")
	f := w.follow(t, "&tailLines=1")
	f.want(t, "two\n")
	w.write(t, "2026-01-01T00:00:03Z stdout F thr")
	w.write(t, "ee\n2026-01-01T00:00:04Z stdout P fo")
	f.want(t, "three\n")
	w.write(t, "u\n2026-01-01T00:00:04Z stdout F r\n")
	f.want(t, "four\n")
	w.cri.exit()
	f.wantEnd(t)
	<-w.cri.left
	// Of a container that has ended, following is reading.
	if code, got := w.get(t, "/containerLogs/ns/p/c?follow=true"); code != http.StatusOK || got != "one\ntwo\nthree\nfour\n" {
		t.Errorf("%d %q", code, got)
	}
}

func TestFollowThroughRotation(t *testing.T) {
	w := newWorld(t)
	w.write(t, "2026-01-01T00:00:01Z stdout F one\n")
	f := w.follow(t, "")
	f.want(t, "one\n")
	for i := range 3 {
		old, err := os.OpenFile(w.log, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(w.log, fmt.Sprint(w.log, ".", i)); err != nil {
			t.Fatal(err)
		}
		// Until the runtime has reopened the log it writes to the old file.
		if _, err := old.WriteString("2026-01-01T00:00:02Z stdout F late\n"); err != nil {
			t.Fatal(err)
		}
		if err := old.Close(); err != nil {
			t.Fatal(err)
		}
		w.write(t, "2026-01-01T00:00:03Z stdout F new\n")
		f.want(t, "late\nnew\n")
	}
	w.cri.exit()
	f.wantEnd(t)
}

func TestAClientThatLeavesFreesAll(t *testing.T) {
	w := newWorld(t)
	w.write(t, sample)
	a, b := w.follow(t, ""), (*follow)(nil)
	a.want(t, "one\n")
	go func() { w.cri.subscribe <- struct{}{} }() // the second shares the first's subscription
	b = w.follow(t, "")
	b.want(t, "one\n")
	a.cancel()
	b.cancel()
	<-w.cri.left // nobody listens any more; goleak sees to the rest
}

func TestTheServersEndCutsStreams(t *testing.T) {
	w := newWorld(t)
	w.write(t, sample)
	f := w.follow(t, "")
	f.want(t, "one\n")
	w.stop()
	<-w.cri.left
	if _, err := os.Stat(w.socket); !os.IsNotExist(err) {
		t.Errorf("the socket is left: %v", err)
	}
}

func TestOnlyTheOwnerHasAccess(t *testing.T) {
	w := newWorld(t)
	info, err := os.Stat(w.socket)
	if err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if entries, err := os.ReadDir(filepath.Dir(w.socket)); err != nil || len(entries) != 1 {
		t.Errorf("beside the socket: %v, %v", entries, err)
	}
}

// A container with access to the log directory must not get the node to read
// the host's files for it, nor to hang.
func TestLogsLeadNowhereElse(t *testing.T) {
	w := newWorld(t)
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, []byte("2026-01-01T00:00:01Z stdout F secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, make := range map[string]func() error{
		"a link":      func() error { return os.Symlink(outside, w.log) },
		"a directory": func() error { return os.Mkdir(w.log, 0o755) },
		"nothing":     func() error { return nil },
	} {
		if err := make(); err != nil {
			t.Fatal(err)
		}
		if code, body := w.get(t, "/containerLogs/ns/p/c"); code != http.StatusBadRequest || strings.Contains(body, "secret\n") {
			t.Errorf("%s: %d %s", name, code, body)
		}
		_ = os.Remove(w.log)
	}
	w.cri.path = outside
	if code, body := w.get(t, "/containerLogs/ns/p/c"); code != http.StatusInternalServerError || !strings.Contains(body, "not below the log directory") {
		t.Errorf("a path elsewhere: %d %s", code, body)
	}
}

func TestWhichLog(t *testing.T) {
	ended := func(id string) *v1.ContainerStateTerminated { return &v1.ContainerStateTerminated{ContainerID: id} }
	waiting := func(reason string) v1.ContainerState {
		return v1.ContainerState{Waiting: &v1.ContainerStateWaiting{Reason: reason}}
	}
	running := v1.ContainerState{Running: &v1.ContainerStateRunning{}}
	last := func(id string) v1.ContainerState { return v1.ContainerState{Terminated: ended(id)} }
	for _, tc := range []struct {
		status   v1.ContainerStatus
		previous bool
		want     string
	}{
		{v1.ContainerStatus{State: running, ContainerID: "e://now"}, false, "e://now"},
		{v1.ContainerStatus{State: running, ContainerID: "e://now", LastTerminationState: last("e://before")}, true, "e://before"},
		{v1.ContainerStatus{State: running, ContainerID: "e://now"}, true, `previous terminated container "c" in pod "p" not found`},
		{v1.ContainerStatus{State: last("e://done")}, false, "e://done"},
		{v1.ContainerStatus{State: last("")}, false, `container "c" in pod "p" is terminated`},
		{v1.ContainerStatus{State: last(""), LastTerminationState: last("e://before")}, false, "e://before"},
		{v1.ContainerStatus{State: waiting("CrashLoopBackOff"), LastTerminationState: last("e://before")}, false, "e://before"},
		{v1.ContainerStatus{State: waiting("CrashLoopBackOff"), LastTerminationState: last("")}, false, `container "c" in pod "p" is terminated`},
		{v1.ContainerStatus{State: waiting("ContainerCreating")}, false, `container "c" in pod "p" is waiting to start: ContainerCreating`},
		{v1.ContainerStatus{State: waiting("ErrImagePull")}, false, `container "c" in pod "p" is waiting to start: image can't be pulled`},
		{v1.ContainerStatus{State: waiting("ImagePullBackOff")}, false, `container "c" in pod "p" is waiting to start: trying and failing to pull image`},
		{v1.ContainerStatus{}, false, `container "c" in pod "p" is waiting to start - no logs yet`},
	} {
		pod := &v1.Pod{}
		pod.Name = "p"
		tc.status.Name = "c"
		pod.Status.InitContainerStatuses = []v1.ContainerStatus{tc.status}
		id, err := containerForLogs(pod, "c", tc.previous)
		got := id.String()
		if err != nil {
			got = err.Error()
		}
		if got != tc.want {
			t.Errorf("%+v: %s\nwant %s", tc.status, got, tc.want)
		}
	}
	if _, err := containerForLogs(&v1.Pod{}, "c", false); err == nil || err.Error() != `container "c" in pod "" is not available` {
		t.Errorf("no status: %v", err)
	}
}

func TestParseLogOptions(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 1, 0, 0, time.UTC)
	parse := func(query string) (logOptions, error) {
		values, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		return parseLogOptions(values, now)
	}
	o, err := parse("follow=1&previous=true&timestamps=true&sinceSeconds=60&tailLines=5&limitBytes=6")
	want := logOptions{follow: true, previous: true, timestamps: true, since: now.Add(-time.Minute), tail: 5, limit: 6, stdout: true, stderr: true}
	if err != nil || o != want {
		t.Errorf("%+v, %v", o, err)
	}
	for _, bad := range []string{
		"follow=maybe", "sinceTime=yesterday", "sinceSeconds=0", "sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z",
		"tailLines=-1", "limitBytes=1e3", "stream=stdout", "stream=Stdout&tailLines=1",
	} {
		if _, err := parse(bad); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
}

// The last n lines are those that remain when all others are cut off, wherever
// blocks begin and end.
func TestSeekTail(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		lines := rapid.SliceOfN(rapid.SampledFrom([]string{"", "a", "bcd", strings.Repeat("x", tailBlock-1), strings.Repeat("y", tailBlock)}), 0, 8).Draw(t, "lines")
		text := strings.Join(lines, "\n")
		if rapid.Bool().Draw(t, "ended") && text != "" {
			text += "\n"
		}
		n := rapid.IntRange(0, 9).Draw(t, "n")
		f, err := os.CreateTemp(dir, "log")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close(); _ = os.Remove(f.Name()) }()
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
		if err := seekTail(f, int64(n)); err != nil {
			t.Fatal(err)
		}
		at, err := f.Seek(0, 1)
		if err != nil {
			t.Fatal(err)
		}
		all := strings.SplitAfter(text, "\n")
		if all[len(all)-1] == "" {
			all = all[:len(all)-1]
		}
		if want := strings.Join(all[max(0, len(all)-n):], ""); text[at:] != want {
			t.Fatalf("the last %d lines begin at %d of %d, %d bytes before the end; want %d", n, at, len(text), len(text)-int(at), len(want))
		}
	})
}

func BenchmarkReadLog(b *testing.B) {
	path := filepath.Join(b.TempDir(), "log")
	line := "2026-01-01T00:00:01.123456789Z stdout F " + strings.Repeat("x", 80) + "\n"
	if err := os.WriteFile(path, []byte(strings.Repeat(line, 10_000)), 0o600); err != nil {
		b.Fatal(err)
	}
	root, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		b.Fatal(err)
	}
	server := &Server{}
	b.SetBytes(int64(len(line)) * 10_000)
	for b.Loop() {
		log := &logFile{root: root, name: "log", path: path}
		if err := log.begin(); err != nil {
			b.Fatal(err)
		}
		out := discard()
		if err := server.copyLog(b.Context(), log, containerID{}, logOptions{tail: -1, limit: -1, stdout: true, stderr: true}, out); err != nil {
			b.Fatal(err)
		}
		_ = log.file.Close()
	}
	_ = root.Close()
}
