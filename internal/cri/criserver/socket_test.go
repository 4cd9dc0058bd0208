package criserver

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "cri")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestEndpoints(t *testing.T) {
	for endpoint, want := range map[string]string{
		"unix:///run/errand/cri.sock":         "",
		"/run/errand/cri.sock":                "not the address of a unix socket",
		"tcp://127.0.0.1:1":                   "not the address of a unix socket",
		"unix://run/cri.sock":                 "must be absolute",
		"unix:///" + strings.Repeat("x", 200): "may have 107",
	} {
		path, err := SocketPath(endpoint)
		if want == "" {
			if err != nil || Endpoint(path) != endpoint {
				t.Errorf("%s: %q, %v", endpoint, path, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", endpoint, err, want)
		}
	}
}

func TestTheSocketIsItsOwnersAlone(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	s, err := Listen(t.Context(), Endpoint(path))
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v, want 0600", st.Mode(), err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket after Close: %v", err)
	}
}

func TestAStaleSocketIsReplaced(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := Listen(t.Context(), Endpoint(path))
	if err != nil {
		t.Fatalf("listen over a stale socket: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestWhatIsInTheWayStays(t *testing.T) {
	dir := shortDir(t)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(t.Context(), Endpoint(file)); err == nil || !strings.Contains(err.Error(), "is no socket") {
		t.Errorf("over a file: %v", err)
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "precious" {
		t.Errorf("the file holds %q, %v", b, err)
	}
	if _, err := Listen(t.Context(), Endpoint(filepath.Join(dir, "none", "s"))); err == nil || !strings.Contains(err.Error(), "make it first") {
		t.Errorf("in a directory that isn't there: %v", err)
	}

	live := filepath.Join(dir, "live")
	first, err := Listen(t.Context(), Endpoint(live))
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	_, err = Listen(t.Context(), Endpoint(live))
	var served *ServedError
	if !errors.As(err, &served) || served.PID != os.Getpid() || served.Name == "" {
		t.Errorf("over a socket that is served: %v, want a ServedError that names process %d", err, os.Getpid())
	}
	if conn, err := net.Dial("unix", live); err != nil {
		t.Errorf("the first one's socket: %v", err)
	} else {
		conn.Close()
	}
}
