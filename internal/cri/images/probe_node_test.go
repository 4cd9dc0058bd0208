//go:build node

package images

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// An errand that is killed while it tries an overlay leaves the mount behind.
func TestProbeOfAKilledErrandIsRemoved(t *testing.T) {
	root := t.TempDir()
	for _, name := range []string{"probe-1/merged", "probe-2", "snapshots"} {
		must(t, os.MkdirAll(filepath.Join(root, name), 0o700))
	}
	mounted := filepath.Join(root, "probe-1/merged")
	must(t, unix.Mount("left", mounted, "tmpfs", 0, ""))
	t.Cleanup(func() { _ = unix.Unmount(mounted, unix.MNT_DETACH) })
	_, err := openBackend(context.Background(), Config{Root: root, Snapshotter: SnapshotterNative})
	must(t, err)
	left, err := filepath.Glob(filepath.Join(root, "probe-*"))
	must(t, err)
	if len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if _, err := os.Stat(filepath.Join(root, "snapshots")); err != nil {
		t.Errorf("what isn't a probe was removed: %v", err)
	}
}
