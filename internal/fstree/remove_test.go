package fstree

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// All of a tree goes, and nothing that its links lead to.
func TestRemove(t *testing.T) {
	dir := t.TempDir()
	kept, doomed := filepath.Join(dir, "kept"), filepath.Join(dir, "doomed")
	must(t, os.MkdirAll(filepath.Join(kept, "sub"), 0o700))
	must(t, os.MkdirAll(filepath.Join(doomed, "a", "b"), 0o700))
	must(t, os.WriteFile(filepath.Join(doomed, "a", "file"), nil, 0o600))
	must(t, os.Symlink(kept, filepath.Join(doomed, "a", "link")))
	must(t, os.Symlink("/nowhere", filepath.Join(doomed, "dangling")))
	must(t, unix.Mkfifo(filepath.Join(doomed, "pipe"), 0o600))
	for range 2 { // what isn't there needs no removing
		must(t, Remove(doomed))
		if _, err := os.Lstat(doomed); !os.IsNotExist(err) {
			t.Errorf("the tree is still there: %v", err)
		}
	}
	if _, err := os.Stat(filepath.Join(kept, "sub")); err != nil {
		t.Error(err)
	}
	must(t, os.Symlink(kept, doomed))
	must(t, Remove(doomed))
	if _, err := os.Stat(filepath.Join(kept, "sub")); err != nil {
		t.Error(err)
	}
}
