//go:build node

package fstree

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// What is mounted in a tree isn't part of it.
func TestRemoveStopsAtMounts(t *testing.T) {
	dir := t.TempDir()
	other, at := filepath.Join(dir, "other"), filepath.Join(dir, "doomed", "mounted")
	must(t, os.MkdirAll(other, 0o700))
	must(t, os.MkdirAll(at, 0o700))
	must(t, os.WriteFile(filepath.Join(other, "file"), nil, 0o600))
	must(t, unix.Mount(other, at, "", unix.MS_BIND, ""))
	t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	must(t, Remove(filepath.Join(dir, "doomed")))
	if _, err := os.Stat(filepath.Join(other, "file")); err != nil {
		t.Error(err)
	}
}
