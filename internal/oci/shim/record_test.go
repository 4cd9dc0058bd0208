package shim

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"errand.dev/errand/internal/oci/shimapi"
)

func TestValidID(t *testing.T) {
	for id, want := range map[string]bool{
		"a": true, "0a_b.c-d": true, strings.Repeat("f", 128): true,
		"": false, ".": false, "..": false, "-a": false, "a/b": false, "a b": false, "ä": false, strings.Repeat("f", 129): false,
	} {
		if err := validID(id); (err == nil) != want {
			t.Errorf("%q: %v", id, err)
		}
	}
}

func validTestRun(id string) shimapi.Run {
	return shimapi.Run{
		ID: id, Bundle: "/b", CgroupsPath: "/errand-test-none/" + id,
		Handler: shimapi.Handler{Name: "runc", Path: "/no/runc", Root: "/no/root", OwnDelete: true},
	}
}

func TestValidRun(t *testing.T) {
	if run := validTestRun("a"); validRun(&run) != nil {
		t.Error(validRun(&run))
	}
	launched := validTestRun("a")
	launched.Launch, launched.Handler = &shimapi.Launch{}, shimapi.Handler{}
	if err := validRun(&launched); err != nil {
		t.Errorf("launched without a runtime: %v", err)
	}
	for name, edit := range map[string]func(*shimapi.Run){
		"no runtime":      func(r *shimapi.Run) { r.Handler = shimapi.Handler{} },
		"bundle":          func(r *shimapi.Run) { r.Bundle = "b" },
		"cgroup":          func(r *shimapi.Run) { r.CgroupsPath = "" },
		"the root cgroup": func(r *shimapi.Run) { r.CgroupsPath = "/" },
		"log":             func(r *shimapi.Run) { r.LogPath = "log" },
		"line":            func(r *shimapi.Run) { r.LogMaxLine = -1 },
		"root":            func(r *shimapi.Run) { r.Handler.Root = "" },
	} {
		run := validTestRun("a")
		edit(&run)
		if validRun(&run) == nil {
			t.Errorf("%s: valid", name)
		}
	}
}

func TestBirth(t *testing.T) {
	own := birth(os.Getpid())
	if own == "" || own != birth(os.Getpid()) {
		t.Errorf("own birth %q, then %q", own, birth(os.Getpid()))
	}
	if got := birth(1 << 30); got != "" {
		t.Errorf("birth of nobody: %q", got)
	}
}

func TestKillBorn(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	born := birth(cmd.Process.Pid)
	if err := killBorn(cmd.Process.Pid, "another boot 123", time.Second); err != nil {
		t.Error(err)
	}
	if birth(cmd.Process.Pid) != born {
		t.Fatal("killed a process that isn't meant")
	}
	if err := killBorn(cmd.Process.Pid, born, 10*time.Second); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.Success() {
		t.Errorf("survived: %v", err)
	}
}

// TestRecover: each state that a killed shim can leave on disk.
func TestRecover(t *testing.T) {
	dir := t.TempDir()
	in := func(id string, files map[string]any) string {
		d := filepath.Join(dir, "containers", id)
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
		for name, v := range files {
			if err := save(d, name, v); err != nil {
				t.Fatal(err)
			}
		}
		return d
	}
	early, late := time.Unix(1000, 0).UTC(), time.Unix(2000, 0).UTC()
	in("empty", nil)
	torn := in("torn", nil)
	if err := os.WriteFile(filepath.Join(torn, runFile), []byte(`{"id":"to`), 0o600); err != nil {
		t.Fatal(err)
	}
	in("deleted", map[string]any{exitFile: shimapi.Exit{Code: 1}})
	in("second", map[string]any{runFile: validTestRun("second"), exitFile: shimapi.Exit{Code: 2, At: late}})
	in("first", map[string]any{
		runFile: validTestRun("first"), exitFile: shimapi.Exit{Code: 1, At: early, OOMKilled: true},
		startedFile: started{Started: shimapi.Started{Pid: 1 << 30, At: early}, Birth: "x"},
	})
	in("lost", map[string]any{runFile: validTestRun("lost"), exitFile + ".new": "torn"})
	for _, f := range []string{"12.exec.json", "3.tty", shimapi.SocketName, "shim.log"} {
		if err := os.WriteFile(filepath.Join(dir, f), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}

	// Twice: the second one finds what the first has recorded.
	for range 2 {
		s := newTestShim(t, dir)
		if err := s.recover(); err != nil {
			t.Fatal(err)
		}
		checkRecovered(t, s, early, late)
		s.lock.Close()
	}
	entries, err := os.ReadDir(filepath.Join(dir, "containers"))
	if err != nil || len(entries) != 3 {
		t.Errorf("%v, %v", entries, err)
	}
	for _, f := range []string{"12.exec.json", "3.tty", shimapi.SocketName} {
		if _, err := os.Stat(filepath.Join(dir, f)); err == nil {
			t.Errorf("%s is left", f)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "shim.log")); err != nil {
		t.Error(err)
	}
}

func checkRecovered(t *testing.T, s *Shim, early, late time.Time) {
	t.Helper()
	got, _ := s.exitsAfter(0)
	if len(got) != 3 {
		t.Fatalf("%+v", got)
	}
	if c := got[0]; c.ID != "first" || c.Exit.Code != 1 || !c.Exit.OOMKilled || c.Pid != 1<<30 || !c.StartedAt.Equal(early) {
		t.Errorf("%+v", c)
	}
	if c := got[1]; c.ID != "second" || c.Exit.Code != 2 || !c.Exit.At.Equal(late) || c.Exit.Reason != "" {
		t.Errorf("%+v", c)
	}
	if c := got[2]; c.ID != "lost" || c.Exit.Code != 137 || c.Exit.Reason != shimapi.ReasonShimLost {
		t.Errorf("%+v", c)
	}
}
