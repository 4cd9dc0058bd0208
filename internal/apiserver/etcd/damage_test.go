package etcd

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// crashImage returns a copy of a member's directory as a power cut would leave
// it, after ten writes: the log holds them all, the database none.
func crashImage(t *testing.T) string {
	t.Helper()
	source, image := t.TempDir(), t.TempDir()
	m, err := Start(t.Context(), Config{Dir: source, SocketDir: socketDir(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer stop(t, m)
	// A commit of the database, so that the copy holds a whole one.
	m.etcd.Server.Backend().ForceCommit()
	copyFile(t, filepath.Join(source, "member/snap/db"), filepath.Join(image, "member/snap/db"))
	for i := range 10 {
		put(t, m.Client(), fmt.Sprintf("key-%d", i), "value")
	}
	log := logFile(t, source)
	copyFile(t, log, filepath.Join(image, "member/wal", filepath.Base(log)))
	return image
}

func logFile(t *testing.T, dir string) string {
	t.Helper()
	logs, err := filepath.Glob(filepath.Join(dir, "member/wal/*.wal"))
	if err != nil || len(logs) != 1 {
		t.Fatalf("logs are %v, %v", logs, err)
	}
	return logs[0]
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// recorded returns the length of the log without the zeros it is filled up with.
func recorded(t *testing.T, log string) int64 {
	t.Helper()
	data, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	return int64(len(bytes.TrimRight(data, "\x00")))
}

func TestAfterAPowerCut(t *testing.T) {
	m := start(t, Config{Dir: crashImage(t)})
	for i := range 10 {
		if got := get(t, m.Client(), fmt.Sprintf("key-%d", i)); got != "value" {
			t.Errorf("key-%d is %q", i, got)
		}
	}
}

// TestATornTailIsDropped cuts the log within its last record: all before it
// must be there, and the member must serve.
func TestATornTailIsDropped(t *testing.T) {
	image := crashImage(t)
	log := logFile(t, image)
	if err := os.Truncate(log, recorded(t, log)-5); err != nil {
		t.Fatal(err)
	}
	m := start(t, Config{Dir: image})
	for i := range 9 {
		if got := get(t, m.Client(), fmt.Sprintf("key-%d", i)); got != "value" {
			t.Errorf("key-%d is %q", i, got)
		}
	}
	put(t, m.Client(), "key-9", "again")
}

func TestDamageIsTold(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, image string){
		"log": func(t *testing.T, image string) {
			log := logFile(t, image)
			data, err := os.ReadFile(log)
			if err != nil {
				t.Fatal(err)
			}
			overwrite(t, log, int64(bytes.Index(data, []byte("key-5"))), 1)
		},
		"database": func(t *testing.T, image string) {
			overwrite(t, filepath.Join(image, "member/snap/db"), 0, 2*os.Getpagesize())
		},
	} {
		t.Run(name, func(t *testing.T) {
			image := crashImage(t)
			damage(t, image)
			_, err := Start(t.Context(), Config{Dir: image, SocketDir: socketDir(t)})
			if err == nil {
				t.Fatal("started")
			}
			for _, part := range []string{image, "are damaged", "restore a backup"} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("no %q in %q", part, err)
				}
			}
		})
	}
}

// overwrite destroys n bytes of a file.
func overwrite(t *testing.T, path string, offset int64, n int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(bytes.Repeat([]byte{0xA5}, n), offset); err != nil {
		t.Fatal(err)
	}
}

func TestExplainStartError(t *testing.T) {
	for want, err := range map[string]error{
		"make room or choose another --data-dir": fmt.Errorf("create: %w", syscall.ENOSPC),
		"must be writable":                       fmt.Errorf("open: %w", syscall.EROFS),
		"are damaged":                            fmt.Errorf("read: %w", io.ErrUnexpectedEOF),
		"start the store in /dir":                errors.New("something else"),
	} {
		got := explainStartError("/dir", err)
		if !errors.Is(got, err) || !strings.Contains(got.Error(), want) {
			t.Errorf("%v became %q, want it to contain %q", err, got, want)
		}
	}
}

func TestExplainFailure(t *testing.T) {
	full := explainFailure("/dir", fmt.Errorf("commit: %w", syscall.ENOSPC))
	if !errors.Is(full, syscall.ENOSPC) || !strings.Contains(full.Error(), "/dir") || !strings.Contains(full.Error(), "make room") {
		t.Errorf("got %v", full)
	}
	if other := explainFailure("/dir", io.ErrShortWrite); !errors.Is(other, io.ErrShortWrite) {
		t.Errorf("got %v", other)
	}
}

// TestAFailedMemberSaysSo covers what a disk that refuses a write leads to.
func TestAFailedMemberSaysSo(t *testing.T) {
	m, err := Start(t.Context(), Config{Dir: t.TempDir(), SocketDir: socketDir(t)})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-m.Failed():
		t.Fatal("failed from the start")
	default:
	}
	m.fatal.set(fmt.Errorf("commit: %w", syscall.ENOSPC))
	<-m.Failed()
	for name, err := range map[string]error{"Err": m.Err(), "Ping": m.Ping(t.Context())} {
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}
