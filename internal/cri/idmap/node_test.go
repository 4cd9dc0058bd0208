//go:build node

package idmap

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/sys"
	"golang.org/x/sys/unix"
)

// withUserNamespace calls f with a user namespace's file.
func withUserNamespace(t *testing.T, f func(users *os.File)) {
	t.Helper()
	const ids = "0:70000:1000"
	err := sys.UnshareAfterEnterUserns(ids, ids, 0, func(pid int) error {
		users, err := os.Open(filepath.Join("/proc", strconv.Itoa(pid), "ns/user"))
		if err != nil {
			return err
		}
		defer users.Close()
		f(users)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func owner(t *testing.T, path string) uint32 {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return st.Sys().(*syscall.Stat_t).Uid
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// makeFile makes a file of a user's.
func makeFile(t *testing.T, path string, uid int) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, nil, 0o644), os.Chown(path, uid, uid))
}

// An overlay shows the files of its layers with mapped owners, and nothing is left of
// how; also where it can't be mounted.
func TestOverlay(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	makeFile(t, at("layers/1/fs/root"), 0)
	makeFile(t, at("layers/2/fs/user"), 5)
	makeFile(t, at("layers/2/fs/stranger"), 1000) // beyond the IDs that there are
	for _, d := range []string{"upper", "work", "merged"} {
		must(t, os.Mkdir(at(d), 0o755))
	}
	options := []string{"lowerdir=" + at("layers/2/fs") + ":" + at("layers/1/fs"), "upperdir=" + at("upper"), "workdir=" + at("work")}
	withUserNamespace(t, func(users *os.File) {
		must(t, Overlay(options, at("scratch"), users, func(options []string) error {
			return (&mount.Mount{Type: "overlay", Source: "overlay", Options: options}).Mount(at("merged"))
		}))
		defer func() { must(t, unix.Unmount(at("merged"), 0)) }()
		for name, want := range map[string]uint32{"root": 70000, "user": 70005, "stranger": 65534} {
			if got := owner(t, at("merged/"+name)); got != want {
				t.Errorf("%s is user %d's, want %d", name, got, want)
			}
		}
		failure := errors.New("no")
		if err := Overlay(options, at("scratch"), users, func([]string) error { return failure }); !errors.Is(err, failure) {
			t.Errorf("got %v", err)
		}
	})
	if _, err := os.Stat(at("scratch")); !os.IsNotExist(err) {
		t.Errorf("what the layers were mounted at is still there: %v", err)
	}
	must(t, Unmount(at("scratch")))
}

func TestBind(t *testing.T) {
	dir := t.TempDir()
	source, target := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	makeFile(t, filepath.Join(source, "f"), 7)
	must(t, os.Mkdir(target, 0o755))
	withUserNamespace(t, func(users *os.File) {
		must(t, Bind(source, target, users, unix.MOUNT_ATTR_RDONLY))
		defer func() { must(t, unix.Unmount(target, 0)) }()
		if got := owner(t, filepath.Join(target, "f")); got != 70007 {
			t.Errorf("the file is user %d's, want 70007", got)
		}
		if err := os.WriteFile(filepath.Join(target, "g"), nil, 0o644); !errors.Is(err, unix.EROFS) {
			t.Errorf("written to a read-only mount: %v", err)
		}
		ns := users.Name()
		if err := Check(source, ns); err != nil {
			t.Error(err)
		}
		if err := Check("/proc/self", ns); err == nil || !strings.Contains(err.Error(), "/proc/self: this kernel can't map the owners of files on proc") {
			t.Errorf("proc: %v", err)
		}
		if err := Check(filepath.Join(dir, "missing"), ns); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("what isn't there: %v", err)
		}
	})
}
