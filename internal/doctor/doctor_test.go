package doctor

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"errand.dev/errand/internal/datadir"
)

// fakeRoot makes a tree with the given files, by their path from the root.
func fakeRoot(t *testing.T, files map[string]string) Host {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return Host{Root: root, DataDir: filepath.Join(root, "data"), Listen: "127.0.0.1:0"}
}

func TestKernel(t *testing.T) {
	for release, want := range map[string]Status{
		"6.18.44-generic": OK,
		"5.10.0":          OK,
		"5.9.16":          Failure,
		"4.18.0-553.el8":  Failure,
		"5.15-rc1":        OK,
		"weird":           Warning,
	} {
		h := fakeRoot(t, map[string]string{"/proc/sys/kernel/osrelease": release + "\n"})
		if f := kernel(t.Context(), h); f.Status != want {
			t.Errorf("kernel %s: %+v, want %s", release, f, want)
		}
	}
}

func TestCgroups(t *testing.T) {
	for name, tc := range map[string]struct {
		files map[string]string
		want  Status
		word  string
	}{
		"v2":             {map[string]string{"/sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory pids\n"}, OK, "v2"},
		"v2 undelegated": {map[string]string{"/sys/fs/cgroup/cgroup.controllers": "cpu pids\n"}, Failure, "memory"},
		"v1": {map[string]string{
			"/sys/fs/cgroup/cpu,cpuacct/tasks": "", "/sys/fs/cgroup/memory/tasks": "", "/sys/fs/cgroup/pids/tasks": "",
		}, Warning, "v1"},
		"none": {nil, Failure, "no cgroup filesystem"},
	} {
		t.Run(name, func(t *testing.T) {
			f := cgroups(t.Context(), fakeRoot(t, tc.files))
			if f.Status != tc.want || !strings.Contains(f.Detail, tc.word) {
				t.Errorf("%+v, want %s that speaks of %s", f, tc.want, tc.word)
			}
			if (f.Status == OK) != (f.Remedy == "") {
				t.Errorf("%+v: a remedy belongs to what is wrong, and only to that", f)
			}
		})
	}
}

func TestPortTellsWhoHasIt(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	h := fakeRoot(t, nil)
	h.Listen = l.Addr().String()
	if f := port(t.Context(), h); f.Status != Failure || !strings.Contains(f.Detail, h.Listen) {
		t.Errorf("a port in a stranger's use: %+v", f)
	}
	d, err := datadir.Open(h.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if f := port(t.Context(), h); f.Status != OK {
		t.Errorf("a port in errand's own use: %+v", f)
	}
}

func TestExamineAnswersEveryCheck(t *testing.T) {
	h := fakeRoot(t, nil)
	found, err := Examine(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	if len(found) != len(checks()) {
		t.Fatalf("%d findings of %d checks", len(found), len(checks()))
	}
	for _, f := range found {
		if f.Status == "" || f.Detail == "" || (f.Status != OK && f.Remedy == "") {
			t.Errorf("incomplete finding %+v", f)
		}
	}
	if Worst(found) != Failure {
		t.Errorf("a host with nothing on it is %s", Worst(found))
	}
}
