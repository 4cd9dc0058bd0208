package fstree

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
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
