package etcd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"
)

// socketDir is short: t.TempDir's paths are too long for a socket.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "e")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func start(t *testing.T, cfg Config) *Member {
	t.Helper()
	if cfg.SocketDir == "" {
		cfg.SocketDir = socketDir(t)
	}
	m, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, m) })
	return m
}

func stop(t *testing.T, m *Member) {
	t.Helper()
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}

func put(t *testing.T, client *clientv3.Client, key, value string) {
	t.Helper()
	if _, err := client.Put(t.Context(), key, value); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, client *clientv3.Client, key string) string {
	t.Helper()
	resp, err := client.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.Kvs) == 0 {
		return ""
	}
	return string(resp.Kvs[0].Value)
}

// TestRestarts covers the election: each start finds a longer log to apply.
func TestRestarts(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), SocketDir: socketDir(t)}
	for i := range 10 {
		m, err := Start(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			if got := get(t, m.Client(), "n"); got != fmt.Sprint(i-1) {
				t.Errorf("start %d: found %q", i, got)
			}
		}
		for range 20 {
			put(t, m.Client(), "n", fmt.Sprint(i))
		}
		if err := m.Ping(t.Context()); err != nil {
			t.Error(err)
		}
		stop(t, m)
	}
}

func TestTheOnlyListenerIsAPrivateSocket(t *testing.T) {
	before := listeningTCP(t)
	m := start(t, Config{Dir: t.TempDir()})
	if after := listeningTCP(t); after != before {
		t.Errorf("%d TCP listeners, %d before the start", after, before)
	}
	client, err := Dial(t.Context(), External{Endpoints: []string{"unix://" + m.Socket()}})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	put(t, client, "a", "over the socket")
	if got := get(t, m.Client(), "a"); got != "over the socket" {
		t.Errorf("the direct client reads %q", got)
	}
}

// listeningTCP counts this process's listening TCP sockets.
func listeningTCP(t *testing.T) int {
	t.Helper()
	own := map[string]bool{}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if target, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil {
			if inode, ok := strings.CutPrefix(target, "socket:["); ok {
				own[strings.TrimSuffix(inode, "]")] = true
			}
		}
	}
	n := 0
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(table)
		if err != nil {
			continue // no IPv6
		}
		for scanner := bufio.NewScanner(f); scanner.Scan(); {
			const stateField, inodeField, listen = 3, 9, "0A"
			fields := strings.Fields(scanner.Text())
			if len(fields) > inodeField && fields[stateField] == listen && own[fields[inodeField]] {
				n++
			}
		}
		f.Close()
	}
	return n
}

func TestAStaleSocketIsReplaced(t *testing.T) {
	dir := socketDir(t)
	if err := os.WriteFile(filepath.Join(dir, socketName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, Config{Dir: t.TempDir(), SocketDir: dir})
}

// On a disk that is full otherwise the database goes on growing for a while; restarts don't add to what is kept for that.
func TestSpaceIsReserved(t *testing.T) {
	cfg := Config{Dir: t.TempDir()}
	for _, name := range []string{"new", "restarted", "restarted again"} {
		t.Run(name, func(t *testing.T) {
			start(t, cfg)
			var st unix.Stat_t
			if err := unix.Stat(databasePath(cfg.Dir), &st); err != nil {
				t.Fatal(err)
			}
			if held := st.Blocks * 512; held < reserveBytes || held > reserveBytes*3/2 {
				t.Errorf("the database holds %d KiB of the disk, want a little over %d", held>>10, reserveBytes>>10)
			}
		})
	}
}

func TestSocketPathTooLong(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("x", 100))
	_, err := Start(t.Context(), Config{Dir: t.TempDir(), SocketDir: dir})
	if err == nil || !strings.Contains(err.Error(), "choose a shorter directory") {
		t.Errorf("got %v", err)
	}
}

func TestExternalThatDoesNotAnswer(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Dial(ctx, External{Endpoints: []string{"unix:///nowhere/etcd.sock"}})
	if err == nil || !strings.Contains(err.Error(), "unix:///nowhere/etcd.sock") || !strings.Contains(err.Error(), "--etcd-servers") {
		t.Errorf("got %v", err)
	}
	_, err = Dial(t.Context(), External{Endpoints: []string{"https://127.0.0.1:1"}, CertFile: "/nowhere", KeyFile: "/nowhere"})
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing certificate: got %v", err)
	}
}

func TestFullMember(t *testing.T) {
	const quota = 4 << 20
	cfg := Config{Dir: t.TempDir(), SocketDir: socketDir(t), QuotaBytes: quota}
	m, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	value := strings.Repeat("x", 30_000)
	var last error
	for i := 0; last == nil && i < 1000; i++ {
		txn := m.Client().Txn(t.Context()).Then(clientv3.OpPut(fmt.Sprint("key-", i), value))
		_, last = txn.Commit()
		m.etcd.Server.Backend().ForceCommit() // the quota counts what is in the file
	}
	var noSpace *NoSpaceError
	if !errors.As(last, &noSpace) || noSpace.Quota != quota || noSpace.Dir != cfg.Dir {
		t.Fatalf("writing on and on: got %v", last)
	}
	if _, err := m.Client().Put(t.Context(), "a", "b"); !errors.As(err, &noSpace) {
		t.Errorf("Put: got %v", err)
	}
	if _, err := m.Client().Do(t.Context(), clientv3.OpPut("a", "b")); !errors.As(err, &noSpace) {
		t.Errorf("Do: got %v", err)
	}
	if err := m.CheckSpace(t.Context()); !errors.As(err, &noSpace) {
		t.Errorf("Check: got %v", err)
	}
	stop(t, m)

	// Nothing can be freed: it stays full, says so, and still serves.
	m, err = Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.CheckSpace(t.Context()); !errors.As(err, &noSpace) {
		t.Errorf("Check after a restart: got %v", err)
	}
	if _, err := m.Client().Delete(t.Context(), "key-", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	stop(t, m)

	// Now there is something to free.
	m, err = Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.CheckSpace(t.Context()); err != nil {
		t.Errorf("Check after the deletion: %v", err)
	}
	put(t, m.Client(), "a", "b")
	stop(t, m)
}

func TestOtherErrorsPass(t *testing.T) {
	m := start(t, Config{Dir: t.TempDir()})
	put(t, m.Client(), "a", "b")
	_, err := m.Client().Get(t.Context(), "a", clientv3.WithRev(1000))
	if !errors.Is(err, rpctypes.ErrFutureRev) {
		t.Errorf("got %v", err)
	}
}
