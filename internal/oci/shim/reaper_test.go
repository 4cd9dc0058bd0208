package shim

import (
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"
)

// newTestReaper reaps for the rest of the test: nobody else in this process may wait for children.
func newTestReaper(t *testing.T) *reaper {
	t.Helper()
	r := newReaper()
	wake := make(chan os.Signal, 1)
	signal.Notify(wake, syscall.SIGCHLD)
	go r.run(wake)
	go r.spawner()
	t.Cleanup(func() {
		signal.Stop(wake)
		close(wake)
		close(r.jobs)
	})
	return r
}

func stdFiles() [3]uintptr { return [3]uintptr{0, 1, 2} }

func TestSpawn(t *testing.T) {
	r := newTestReaper(t)
	for script, want := range map[string]int{"exit 0": 0, "exit 7": 7, "kill -9 $$": 137, "kill -15 $$": 143} {
		before := time.Now()
		_, done, err := r.spawn([]string{"/bin/sh", "-c", script}, stdFiles())
		if err != nil {
			t.Fatal(err)
		}
		if e := <-done; e.code != want || e.at.Before(before) {
			t.Errorf("%s: %+v, want code %d", script, e, want)
		}
	}
	if _, _, err := r.spawn([]string{"/no/such/program"}, stdFiles()); err == nil {
		t.Error("no error for a program that doesn't exist")
	}
	// What the shim got isn't for its children.
	t.Setenv("NOTIFY_SOCKET", "/x")
	_, done, err := r.spawn([]string{"/bin/sh", "-c", `exit ${NOTIFY_SOCKET:+1}`}, stdFiles())
	if err != nil {
		t.Fatal(err)
	}
	if e := <-done; e.code != 0 {
		t.Error("NOTIFY_SOCKET is passed on")
	}
}

func TestKill(t *testing.T) {
	r := newTestReaper(t)
	pid, done, err := r.spawn([]string{"/bin/sh", "-c", "exec sleep 1000"}, stdFiles())
	if err != nil {
		t.Fatal(err)
	}
	if err := r.kill(pid, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	if e := <-done; e.code != 137 {
		t.Errorf("%+v", e)
	}
	if err := r.kill(pid, syscall.SIGKILL); err != nil {
		t.Errorf("after its end: %v", err)
	}
	// Not ours: never signalled, whoever has the pid.
	if err := r.kill(os.Getppid(), syscall.SIGKILL); err != nil {
		t.Error(err)
	}
}

// TestStrays is about grandchildren, whose end may be seen before their pid is known.
func TestStrays(t *testing.T) {
	r := newReaper()
	told := map[string]int{}
	tell := func(name string) func(ended) { return func(e ended) { told[name] = e.code } }
	stray := func(pid, code int) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.starts) > 0 {
			r.events++
			r.strays[pid] = strayWith(code, r.events)
		}
	}
	stray(10, 1) // nobody can mean it
	a := r.begin()
	stray(11, 2)
	b := r.begin()
	stray(12, 3)
	r.adopt(b, 11, tell("b")) // ended before b began: was another process with that pid
	r.adopt(a, 12, tell("a"))
	if told["a"] != 3 || len(told) != 1 {
		t.Errorf("told %v", told)
	}
	r.adopt(a, 11, tell("a"))
	if told["a"] != 2 {
		t.Errorf("told %v", told)
	}
	stray(13, 4)
	r.end(a)
	if len(r.strays) != 1 {
		t.Errorf("strays %v: b may still mean that of 13", r.strays)
	}
	r.end(b)
	if len(r.strays) != 0 || len(r.starts) != 0 {
		t.Errorf("kept %v, %v", r.strays, r.starts)
	}
}

func strayWith(code int, event uint64) stray { return stray{ended: ended{code: code}, event: event} }
