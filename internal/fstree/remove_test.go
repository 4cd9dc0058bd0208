package fstree

import (
	"os"
	"path/filepath"
	"strings"
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

// A container can make a tree deeper than a path can say, and than there are
// descriptors.
func TestRemoveDeepTrees(t *testing.T) {
	dir := t.TempDir()
	doomed := filepath.Join(dir, "doomed")
	must(t, os.Mkdir(doomed, 0o700))
	makeDeep(t, doomed, 5*maxOpen)
	var before unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &before))
	few := before
	few.Cur = 2*maxOpen + 100
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &few))
	defer func() { must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &before)) }()
	if err := Remove(doomed); err != nil {
		t.Fatalf("%.1000s", err)
	}
	if _, err := os.Lstat(doomed); !os.IsNotExist(err) {
		t.Errorf("the tree is still there: %v", err)
	}
}

// makeDeep makes directories, each in the one before, and beside each another.
func makeDeep(t *testing.T, root string, depth int) {
	t.Helper()
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC
	fd, err := unix.Open(root, flags, 0)
	must(t, err)
	name := strings.Repeat("d", 100)
	for range depth {
		must(t, unix.Mkdirat(fd, name, 0o700))
		must(t, unix.Mkdirat(fd, "removed-1", 0o700)) // as what is moved is called
		below, err := unix.Openat(fd, name, flags, 0)
		must(t, err)
		must(t, unix.Close(fd))
		fd = below
	}
	must(t, unix.Close(fd))
}
