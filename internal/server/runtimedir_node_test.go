//go:build node

package server

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/moby/sys/mountinfo"

	"errand.dev/errand/internal/instance"
	"errand.dev/errand/internal/memoryfs"
)

// onDisk returns the path of a directory to be made that isn't in memory.
func onDisk(t *testing.T) string {
	t.Helper()
	for _, parent := range []string{os.TempDir(), "/var/tmp"} {
		if on, err := memoryfs.Look(parent); err != nil || on.Memory {
			continue
		}
		dir, err := os.MkdirTemp(parent, "runtimedir-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		return filepath.Join(dir, "run")
	}
	t.Fatal("this test needs a folder that isn't in memory: neither the temporary one nor /var/tmp is")
	return ""
}

func mountsAt(t *testing.T, path string) int {
	t.Helper()
	all, err := mountinfo.GetMounts(mountinfo.PrefixFilter(path))
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

func touch(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// The runtime directory is in memory where nobody has made it so, with what was
// in it before still there, and nothing is left of it that isn't needed.
func TestTheRuntimeDirectoryIsInMemory(t *testing.T) {
	for _, tc := range []struct {
		name   string
		before func(t *testing.T, path string)
		pods   bool
		mounts int
	}{
		{name: "there is none", before: func(*testing.T, string) {}, pods: true, mounts: 1},
		{name: "it is empty", before: func(t *testing.T, path string) {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}, pods: true, mounts: 1},
		{name: "something is in it", before: func(t *testing.T, path string) {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
			touch(t, filepath.Join(path, "shim.sock"))
		}, pods: true, mounts: 0},
		{name: "there are no pods", before: func(*testing.T, string) {}, pods: false, mounts: 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			names := instance.Names{RuntimeDir: onDisk(t)}
			path := names.RuntimeDir
			tc.before(t, path)
			t.Cleanup(func() {
				if err := removeRuntimeDir(names); err != nil {
					t.Error(err)
				}
			})
			for range 2 { // an errand, and the one after it was killed
				if err := makeRuntimeDir(path, tc.pods); err != nil {
					t.Fatal(err)
				}
			}
			if n := mountsAt(t, path); n != tc.mounts {
				t.Fatalf("%d file systems are mounted, want %d", n, tc.mounts)
			}
			shim := filepath.Join(path, "shim.sock")
			touch(t, shim)
			leaveRuntimeDir(names)
			if _, err := os.Stat(shim); err != nil {
				t.Fatalf("what goes on has lost its socket: %v", err)
			}
			if err := os.Remove(shim); err != nil {
				t.Fatal(err)
			}
			leaveRuntimeDir(names)
			if _, err := os.Stat(path); !os.IsNotExist(err) || mountsAt(t, path) != 0 {
				t.Errorf("it is left, with %d mounts, though nothing is in it: %v", mountsAt(t, path), err)
			}
		})
	}
}

// What is mounted goes with a drain, whatever is in it.
func TestADrainTakesTheRuntimeDirectoryAway(t *testing.T) {
	names := instance.Names{RuntimeDir: onDisk(t)}
	if err := makeRuntimeDir(names.RuntimeDir, true); err != nil {
		t.Fatal(err)
	}
	touch(t, filepath.Join(names.RuntimeDir, "left"))
	if err := removeRuntimeDir(names); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(names.RuntimeDir); !os.IsNotExist(err) || mountsAt(t, names.RuntimeDir) != 0 {
		t.Errorf("it is left: %v", err)
	}
}
