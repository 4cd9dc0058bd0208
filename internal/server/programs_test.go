package server

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestParseVersion(t *testing.T) {
	for out, want := range map[string]struct {
		program string
		v       release
		ok      bool
	}{
		"runc version 1.5.2\nspec: 1.3.0\n": {"runc", release{1, 5, 2}, true},
		"crun version 1.21\ncommit: abc\n":  {"crun", release{1, 21, 0}, true},
		"runc version 1.1.5+ds1\n":          {"runc", release{1, 1, 5}, true},
		"runc version 1.5.0-rc.1\n":         {"runc", release{1, 5, 0}, true},
		"runc version unknown\n":            {"", release{}, false},
		"kata-runtime  : 3.1.0\n":           {"", release{}, false},
		"":                                  {"", release{}, false},
	} {
		if p, v, ok := parseVersion(out); p != want.program || ok != want.ok || (ok && v != want.v) {
			t.Errorf("parseVersion(%q) = %q, %v, %v, want %+v", out, p, v, ok, want)
		}
	}
}

// fakeRuntime makes an executable that tells its version.
func fakeRuntime(t *testing.T, name, version string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	script := "#!/bin/sh\necho '" + name + " version " + version + "'\n"
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// crun starts no container where cgroups are hybrid and version 2 has controllers.
func TestUnfitForHybrid(t *testing.T) {
	for name, tc := range map[string]struct {
		program, controllers string
		unfit                bool
	}{
		"crun beside controllers":  {"crun", "hugetlb\n", true},
		"crun, version 2 has none": {"crun", "\n", false},
		"crun, not hybrid":         {"crun", "", false},
		"runc doesn't mind":        {"runc", "hugetlb\n", false},
	} {
		file := filepath.Join(t.TempDir(), "cgroup.controllers")
		if tc.controllers != "" {
			if err := os.WriteFile(file, []byte(tc.controllers), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		why := unfitForHybrid(tc.program, "/usr/bin/crun", file)
		if (why != "") != tc.unfit || tc.unfit && !strings.Contains(why, "/usr/bin/crun") {
			t.Errorf("%s: %q", name, why)
		}
	}
}

func TestARuntimeThatIsTooOldIsNamed(t *testing.T) {
	old, fine, unknown := fakeRuntime(t, "runc", "1.1.5+ds1"), fakeRuntime(t, "crun", "1.21"), fakeRuntime(t, "youki", "0.1.0")
	o := DefaultOptions()
	o.Shim = "/shim"
	o.Runtimes = map[string]string{"a": old, "crun": fine, "youki": unknown}
	want := "--runtime a: runc 1.1.5 at " + old + " is older than 1.1.12"
	if p := FindPrograms(o); !slices.Equal(p.TooOldNamed, []string{want}) {
		t.Errorf("TooOldNamed = %q, want %q", p.TooOldNamed, want)
	} else if err := p.serve(true); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("it serves with it: %v", err)
	}
	o.Runtimes = map[string]string{"crun": fine, "youki": unknown}
	if err := FindPrograms(o).serve(false); err != nil {
		t.Errorf("with those that serve: %v", err)
	}

	// One in $PATH is passed over.
	t.Setenv("PATH", filepath.Dir(old))
	o.Runtimes = nil
	p := FindPrograms(o)
	if len(p.Runtimes) > 0 || !slices.Equal(p.PassedOver, []string{"runc 1.1.5 at " + old + " is older than 1.1.12"}) {
		t.Errorf("found %v, passed over %q", p.Runtimes, p.PassedOver)
	}
	if err := p.serve(false); err == nil || !strings.Contains(err.Error(), old) || !strings.Contains(err.Error(), OldestRuntimes()) {
		t.Errorf("the error names neither what is there nor what would serve: %v", err)
	}
	if note := p.Note(); !strings.Contains(note, old) || !strings.Contains(note, OldestRuntimes()) {
		t.Errorf("nor does the note: %q", note)
	}
}

// One that doesn't run is told of, rather than that there is none.
func TestARuntimeThatDoesNotRunIsNamed(t *testing.T) {
	for name, tc := range map[string]struct{ script, want string }{
		"fails":       {"exit 3", "--version fails: exit status 3"},
		"no version":  {"echo hello", `--version says "hello", which is no version`},
		"other words": {"echo crun version x", `--version says "crun version x", which is no version`},
	} {
		path := filepath.Join(t.TempDir(), "crun")
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+tc.script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		t.Setenv("PATH", filepath.Dir(path)+":/bin")
		o := DefaultOptions()
		o.Shim = "/shim"
		p := FindPrograms(o)
		if len(p.PassedOver) != 1 || p.PassedOver[0] != path+" "+tc.want {
			t.Errorf("%s: passed over %q, want %q", name, p.PassedOver, tc.want)
		}
		if err := p.serve(false); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: the error doesn't name it: %v", name, err)
		}
	}
}

func TestOlder(t *testing.T) {
	for _, tc := range []struct {
		a, b release
		want bool
	}{
		{release{1, 1, 5}, release{1, 1, 12}, true},
		{release{1, 1, 12}, release{1, 1, 12}, false},
		{release{1, 21, 0}, release{1, 3, 9}, false},
		{release{0, 99, 99}, release{1, 0, 0}, true},
	} {
		if got := older(tc.a, tc.b); got != tc.want {
			t.Errorf("older(%v, %v) = %v", tc.a, tc.b, got)
		}
	}
}

func TestDefaultRuntime(t *testing.T) {
	for _, tc := range []struct {
		have map[string]string
		want string
	}{
		{map[string]string{"runc": "/r", "crun": "/c"}, "crun"},
		{map[string]string{"runc": "/r", "kata": "/k"}, "runc"},
		{map[string]string{"kata": "/k"}, "kata"},
		{map[string]string{"kata": "/k", "gvisor": "/g"}, ""},
		{nil, ""},
	} {
		if got := defaultRuntime(tc.have); got != tc.want {
			t.Errorf("defaultRuntime(%v) = %q, want %q", tc.have, got, tc.want)
		}
	}
}

// The README, the manual and the script that builds runc tell the same minimum.
func TestTheMinimumIsTheSameEverywhere(t *testing.T) {
	read := func(path string) string {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return strings.ReplaceAll(string(b), "`", "")
	}
	for _, path := range []string{"../../README.md", "../../docs/configuration.md"} {
		text := read(path)
		for _, r := range oldestRuntimes {
			if want := r.name + " (" + r.version.String() + " or newer)"; !strings.Contains(text, want) {
				t.Errorf("%s doesn't say %q", path, want)
			}
		}
	}
	out, err := exec.Command("sed", "-n", `s/^[[:space:]]*{"\([a-z]*\)", release{\([0-9]*\), \([0-9]*\), \([0-9]*\)}},$/\1 \2.\3.\4/p`, "programs.go").Output()
	if want := "crun 1.21.0\nrunc 1.1.12\n"; err != nil || string(out) != want {
		t.Errorf("scripts/runc.sh would read %q, %v, want %q", out, err, want)
	}
}
