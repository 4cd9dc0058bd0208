package fstree

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMeasure(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, size int) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, make([]byte, size), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	measure := func() Usage {
		t.Helper()
		u, err := Measure(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	write("a/file", 1<<20)
	before := measure()
	if before.Bytes < 1<<20 || before.Inodes != 3 {
		t.Errorf("a file of 1 MiB, its directory and the root are %+v", before)
	}
	// Neither a second name nor a link to elsewhere takes a second MiB.
	if err := os.Link(filepath.Join(dir, "a/file"), filepath.Join(dir, "hard")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/usr", filepath.Join(dir, "soft")); err != nil {
		t.Fatal(err)
	}
	// A hole takes no room.
	if err := os.Truncate(filepath.Join(dir, "a/file"), 1<<30); err != nil {
		t.Fatal(err)
	}
	after := measure()
	if grown := after.Bytes - before.Bytes; after.Inodes != 4 || grown > 64<<10 {
		t.Errorf("links and holes take %d bytes and %d inodes more", grown, after.Inodes-before.Inodes)
	}

	if u, err := Measure(t.Context(), filepath.Join(dir, "nosuch")); err != nil || u != (Usage{}) {
		t.Errorf("what isn't there: %+v, %v", u, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Measure(ctx, dir); !errors.Is(err, context.Canceled) {
		t.Errorf("a walk that was called off: %v", err)
	}
}

// Nor does a tree deeper than a path can say go uncounted: a container could hide
// there what it writes, and keep all others' from being measured.
func TestMeasureDeepTrees(t *testing.T) {
	const depth = 3 * maxOpen
	dir := t.TempDir()
	makeDeep(t, dir, depth)
	open := len(descriptors(t))
	u, err := Measure(t.Context(), dir)
	if err != nil || u.Inodes != 1+2*depth {
		t.Errorf("%+v, %v, want %d inodes", u, err, 1+2*depth)
	}
	if n := len(descriptors(t)); n != open {
		t.Errorf("%d descriptors are open afterwards, %d were before", n, open)
	}
	must(t, Remove(dir))
}

func descriptors(t *testing.T) []os.DirEntry {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return entries
}

// What a container moves elsewhere while it is walked leads nobody out of the tree.
func TestWalkOfWhatIsMoved(t *testing.T) {
	dir := t.TempDir()
	tree, elsewhere := filepath.Join(dir, "tree"), filepath.Join(dir, "elsewhere")
	// What is beside the way down is found by its name on the way back, in the right place or not.
	for i := range 20 {
		beside := fmt.Sprint("beside-", i)
		must(t, os.MkdirAll(filepath.Join(tree, "0", beside), 0o700))
		must(t, os.MkdirAll(filepath.Join(elsewhere, beside, "secret"), 0o700))
	}
	makeDeep(t, filepath.Join(tree, "0"), maxOpen+10)
	var steps int
	err := Walk(tree, func(fd int, name string, st *unix.Stat_t) (bool, error) {
		if name == "secret" {
			t.Error("it came out of the tree")
		}
		if steps++; steps > 2*maxOpen {
			// Now that the first directories are closed, the second one's parent is another.
			err := os.Rename(filepath.Join(tree, "0", strings.Repeat("d", 100)), filepath.Join(elsewhere, "moved"))
			if err != nil && !os.IsNotExist(err) {
				t.Error(err)
			}
		}
		return st.Mode&unix.S_IFMT == unix.S_IFDIR, nil
	})
	must(t, err)
	must(t, Remove(elsewhere))
	must(t, Remove(tree))
}
