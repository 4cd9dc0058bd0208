package instance

import (
	"os"
	"path/filepath"
	"testing"
)

func TestDefaultHasPlainNames(t *testing.T) {
	got, err := For(DefaultDataDir)
	if err != nil {
		t.Fatal(err)
	}
	want := Names{ID: "errand", RuntimeDir: filepath.Join(runtimeRoot(), "errand"), CgroupParent: "/errand", Bridge: "errand0", NFTable: "errand"}
	if got != want {
		t.Errorf("For(%q) = %+v, want %+v", DefaultDataDir, got, want)
	}
}

func TestNamesAgreeBeforeAndAfterTheDirectoryExists(t *testing.T) {
	base := t.TempDir()
	real := filepath.Join(base, "real")
	if err := os.Mkdir(real, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, filepath.Join(base, "link")); err != nil {
		t.Fatal(err)
	}
	spellings := []string{
		filepath.Join(real, "data"),
		filepath.Join(base, "link", "data"),
		filepath.Join(real, "x", "..", "data"),
	}
	var names []Names
	for range 2 {
		for _, s := range spellings {
			n, err := For(s)
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, n)
		}
		if err := os.MkdirAll(filepath.Join(real, "data"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for i, n := range names {
		if n != names[0] {
			t.Errorf("spelling %d: %+v, want %+v", i, n, names[0])
		}
	}
	if len(names[0].Bridge) > 15 {
		t.Errorf("bridge name %q is longer than an interface's name may be", names[0].Bridge)
	}
}

func TestDifferentDirectoriesDiffer(t *testing.T) {
	a, _ := For("/a")
	b, _ := For("/b")
	if a == b {
		t.Errorf("two data directories share the names %+v", a)
	}
}
