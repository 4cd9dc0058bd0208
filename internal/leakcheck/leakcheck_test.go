package leakcheck

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"errand.dev/errand/internal/instance"
)

func TestNothingIsLeftByNobody(t *testing.T) {
	Check(t, t.TempDir())
}

// recorder is a test that may fail without failing this one.
type recorder struct {
	testing.TB
	failures []string
	cleanups []func()
}

func (r *recorder) Helper()          {}
func (r *recorder) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }
func (r *recorder) Errorf(format string, a ...any) {
	r.failures = append(r.failures, fmt.Sprintf(format, a...))
}
func (r *recorder) Fatal(a ...any) { panic(fmt.Sprint(a...)) }

func TestWhatIsThereBeforeIsTold(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command("sh", "-c", "echo up; read x", "--data-dir="+dir)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// Right after exec a process has no command line for a moment.
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	r := &recorder{TB: t}
	Check(r, dir)
	if len(r.failures) != 1 || !strings.Contains(r.failures[0], fmt.Sprintf("process %d", cmd.Process.Pid)) {
		t.Errorf("told: %q", r.failures)
	}
	if err := in.Close(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // read fails at the end of input
	r.failures = nil
	for _, f := range r.cleanups {
		f()
	}
	if len(r.failures) != 0 {
		t.Errorf("told after it had gone: %q", r.failures)
	}
}

func TestFilesAreFound(t *testing.T) {
	dir := t.TempDir()
	names := instance.Names{ID: "x", RuntimeDir: filepath.Join(dir, "run"), CgroupParent: "/no-such-errand", Bridge: "er-none", NFTable: "no-such-errand"}
	if err := os.MkdirAll(filepath.Join(names.RuntimeDir, "a"), 0o700); err != nil {
		t.Fatal(err)
	}
	left, err := Find(names, filepath.Join(dir, "data"))
	if err != nil || len(left) != 2 {
		t.Errorf("found %q, %v", left, err)
	}
}

// What came since the stock was taken is told, what was there or has gone isn't.
func TestStockFindsWhatCame(t *testing.T) {
	dir := t.TempDir()
	path := func(elem ...string) string { return filepath.Join(append([]string{dir}, elem...)...) }
	for _, d := range []string{path("etcd"), path("pods", "gone"), path("logs")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	r := &recorder{TB: t}
	check := stock(r, dir, 0)
	for _, d := range []string{path("etcd", "new"), path("pods", "new"), path("images", "content", "new")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(path("pods", "gone")); err != nil {
		t.Fatal(err)
	}
	check()
	want := []string{"left behind: file " + path("images"), "left behind: file " + path("pods", "new")}
	if !slices.Equal(r.failures, want) {
		t.Errorf("told: %q, want %q", r.failures, want)
	}
}

// Logs that are kept are no leak, unless nothing tells of what they are.
func TestKeptLogsAreNoLeak(t *testing.T) {
	dir := t.TempDir()
	kept := filepath.Join(dir, "logs", "kept")
	if err := os.MkdirAll(kept, 0o700); err != nil {
		t.Fatal(err)
	}
	r := &recorder{TB: t}
	check := stock(r, dir, 0)
	for _, file := range []string{"a_c_0.json", "a_c_0.log", "a_c_0.log.20260701-120000.gz", "uid.gone", "b_c_0.log", "c_c_0.json.tmp", "core"} {
		if err := os.WriteFile(filepath.Join(kept, file), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	check()
	var want []string
	for _, file := range []string{"b_c_0.log", "c_c_0.json.tmp", "core"} {
		want = append(want, "left behind: file "+filepath.Join(kept, file))
	}
	if !slices.Equal(r.failures, want) {
		t.Errorf("told: %q, want %q", r.failures, want)
	}
}

func TestMoreCounts(t *testing.T) {
	if got := more([]string{"a", "b"}, []string{"a", "a", "c"}); !slices.Equal(got, []string{"a", "c"}) {
		t.Errorf("more: %q", got)
	}
}

func TestBelow(t *testing.T) {
	for path, want := range map[string]bool{"/a": true, "/a/b": true, "/ab": false, "": false, "/": false} {
		if below(path, "/a") != want {
			t.Errorf("below(%q) is %t", path, !want)
		}
	}
	if !inCgroup([]byte("5:memory:/a/b\n"), "/a") || inCgroup([]byte("5:memory:/ab\n0::/\n"), "/a") {
		t.Error("wrong idea of what is in a cgroup")
	}
}
