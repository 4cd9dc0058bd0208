package datadir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOnlyOneHolds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	first, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Open(path)
	var held *HeldError
	if !errors.As(err, &held) || held.Holder.PID != os.Getpid() || held.Holder.Command != command(os.Args) {
		t.Fatalf("second Open: %v, want a HeldError that names process %d", err, os.Getpid())
	}
	if h, ok, err := HeldBy(path); err != nil || !ok || h != held.Holder {
		t.Errorf("HeldBy = %v, %v, %v, want %v", h, ok, err, held.Holder)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if h, ok, err := HeldBy(path); err != nil || ok {
		t.Errorf("HeldBy after Close = %v, %v, want none", h, err)
	}
	again, err := Open(path)
	if err != nil {
		t.Fatalf("Open after Close: %v", err)
	}
	defer again.Close()
}

func TestFormat(t *testing.T) {
	for name, tc := range map[string]struct {
		content string
		check   func(error) bool
	}{
		"newer":   {"99\n", func(err error) bool { var n *NewerError; return errors.As(err, &n) && n.Format == 99 }},
		"same":    {"1\n", func(err error) bool { return err == nil }},
		"garbage": {"apple\n", func(err error) bool { return err != nil && strings.Contains(err.Error(), `holds "apple"`) }},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, formatFile), []byte(tc.content), 0o600); err != nil {
				t.Fatal(err)
			}
			d, err := Open(dir)
			if !tc.check(err) {
				t.Errorf("Open of a data directory with format %q: %v", tc.content, err)
			}
			if err == nil {
				d.Close()
			} else if _, ok, _ := HeldBy(dir); ok {
				t.Error("the lock is still held after a failed Open")
			}
		})
	}
}

func TestHolderInWords(t *testing.T) {
	for _, tc := range []struct {
		argv   []string
		want   string
		serves bool
	}{
		{[]string{"/usr/bin/errand", "serve", "--node=false"}, "errand serve", true},
		{[]string{"errand", "cri", "--listen=unix:///s"}, "errand cri", true},
		{[]string{"errand", "image", "pull", "busybox"}, "errand image pull", false},
		{[]string{"errand", "image", "--data-dir", "/d", "pull"}, "errand image", false},
		{[]string{"errand"}, "errand", false},
	} {
		h := Holder{PID: 7, Command: command(tc.argv)}
		if want := "process 7 (" + tc.want + ")"; h.String() != want || h.Serves() != tc.serves {
			t.Errorf("%q: %s, serves %t, want %s", tc.argv, h, h.Serves(), want)
		}
	}
	// A lock that an earlier errand wrote has no command.
	path := filepath.Join(t.TempDir(), lockFile)
	if err := os.WriteFile(path, []byte("12\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if h := readHolder(path); h.String() != "process 12" {
		t.Errorf("%s, want process 12", h)
	}
}

func TestOpenExistingMakesNothing(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "typo")
	empty := t.TempDir()
	for _, path := range []string{missing, empty} {
		_, err := OpenExisting(path)
		if want := "there is no errand at " + path + ": start one with errand serve, or name another's data directory by --data-dir or $ERRAND_DATA_DIR"; !errors.Is(err, fs.ErrNotExist) || err.Error() != want {
			t.Errorf("OpenExisting(%s): %v, want %s", path, err, want)
		}
	}
	if _, err := os.Stat(missing); err == nil {
		t.Error("it made the directory")
	}
	if entries, err := os.ReadDir(empty); err != nil || len(entries) > 0 {
		t.Errorf("it left %v in an empty directory", entries)
	}
	d, err := Open(empty)
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
	if d, err = OpenExisting(empty); err != nil {
		t.Fatal(err)
	}
	d.Close()
}

// Where no directory can be, it is said what to do.
func TestWhereNoDirectoryCanBe(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, filepath.Join(file, "below")} {
		want := "make the data directory: mkdir " + file + ": not a directory, but a file: move it away, or give this another --data-dir"
		if _, err := Open(path); err == nil || err.Error() != want {
			t.Errorf("Open(%s): %v, want %s", path, err, want)
		}
		if _, err := OpenExisting(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("OpenExisting(%s): %v", path, err)
		}
	}
	for errno, want := range map[error]string{
		unix.EROFS:  "read-only file system: make it writable, or give this another --data-dir",
		unix.ENOSPC: "no space left on device: free some, or give this another --data-dir",
		unix.EIO:    "input/output error",
	} {
		if got := forUser(errno); got.Error() != want {
			t.Errorf("%v, want %s", got, want)
		}
	}
}
