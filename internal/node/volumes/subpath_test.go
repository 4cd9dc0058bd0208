package volumes

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOpenSubPathStaysInTheVolume(t *testing.T) {
	outside := t.TempDir()
	mustWrite(t, filepath.Join(outside, "secret"), "x")
	root := t.TempDir()
	mustWrite(t, filepath.Join(root, "dir/file"), "in")
	for link, target := range map[string]string{
		"inner":   "dir",
		"abs":     outside,
		"up":      "../" + filepath.Base(outside),
		"dir/up2": "../..",
		"magic":   "/proc/self/root",
		"nowhere": "no/such/place",
	} {
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	for sub, want := range map[string]string{
		"dir":            "",
		"dir/file":       "",
		"inner/file":     "",
		"new/deep":       "",
		"inner/new":      "",
		"abs/secret":     "it leads out of the volume",
		"abs/created":    "it leads out of the volume",
		"up/secret":      "it leads out of the volume",
		"dir/up2/x":      "it leads out of the volume",
		"magic/etc":      "it leads out of the volume",
		"dir/file/below": "not a directory",
		"nowhere":        "a link on it leads nowhere",
		"nowhere/x":      "a link on it leads nowhere",
	} {
		fd, err := openSubPath(root, sub)
		if errText(err) != want {
			t.Errorf("%s: %q, want %q", sub, errText(err), want)
		}
		if err != nil {
			continue
		}
		path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
		if err != nil || !strings.HasPrefix(path, root+"/") {
			t.Errorf("%s led to %s, %v", sub, path, err)
		}
		if err := unix.Close(fd); err != nil {
			t.Error(err)
		}
	}
	entries, err := os.ReadDir(outside)
	if err != nil || len(entries) != 1 {
		t.Errorf("outside the volume: %v, %v", entries, err)
	}
}

// Pods that share a claim may want the same new directory at the same time.
func TestOpenSubPathTogether(t *testing.T) {
	root := t.TempDir()
	for i := range 300 {
		sub := fmt.Sprintf("%d/deep", i)
		var pods sync.WaitGroup
		for range 4 {
			pods.Go(func() {
				fd, err := openSubPath(root, sub)
				if err == nil {
					err = unix.Close(fd)
				}
				if err != nil {
					t.Errorf("%s: %v", sub, err)
				}
			})
		}
		pods.Wait()
	}
}

func TestSubPathDirectoriesHaveTheVolumesMode(t *testing.T) {
	root := t.TempDir()
	mode := os.ModeSetgid | 0o777
	if err := os.Chmod(root, mode); err != nil {
		t.Fatal(err)
	}
	fd, err := openSubPath(root, "a/b")
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Close(fd); err != nil {
		t.Error(err)
	}
	for _, p := range []string{"a", "a/b"} {
		info, err := os.Stat(filepath.Join(root, p))
		if err != nil || info.Mode() != os.ModeDir|mode {
			t.Errorf("%s: %v, %v; want %v", p, info.Mode(), err, mode)
		}
	}
}

// A container that swaps a directory for a link as fast as it can gets an error
// or its own files, never the host's.
func TestOpenSubPathUnderAttack(t *testing.T) {
	outside := t.TempDir()
	root := t.TempDir()
	mustWrite(t, filepath.Join(root, "real/x"), "")
	if err := os.Symlink(outside, filepath.Join(root, "evil")); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 3000 {
			a, b := filepath.Join(root, "real"), filepath.Join(root, "evil")
			_ = unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
		}
	}()
	for attacking := true; attacking; {
		select {
		case <-done:
			attacking = false
		default:
		}
		fd, err := openSubPath(root, "real/made/here")
		if err != nil {
			continue
		}
		path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
		if err != nil || !strings.HasPrefix(path, root+"/") {
			t.Fatalf("led to %s, %v", path, err)
		}
		if err := unix.Close(fd); err != nil {
			t.Fatal(err)
		}
	}
	if entries, _ := os.ReadDir(outside); len(entries) != 0 {
		t.Errorf("made outside the volume: %v", entries)
	}
}
