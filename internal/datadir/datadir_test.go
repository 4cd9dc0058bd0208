package datadir

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOnlyOneHolds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	first, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Open(path)
	var held *HeldError
	if !errors.As(err, &held) || held.PID != os.Getpid() {
		t.Fatalf("second Open: %v, want a HeldError that names process %d", err, os.Getpid())
	}
	if pid, err := Holder(path); err != nil || pid != os.Getpid() {
		t.Errorf("Holder = %d, %v, want %d", pid, err, os.Getpid())
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if pid, err := Holder(path); err != nil || pid != 0 {
		t.Errorf("Holder after Close = %d, %v, want none", pid, err)
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
			} else if pid, _ := Holder(dir); pid != 0 {
				t.Error("the lock is still held after a failed Open")
			}
		})
	}
}
