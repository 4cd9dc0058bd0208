package portholder

import (
	"net"
	"os"
	"strings"
	"testing"
)

func TestFind(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	got := Find("/", address)
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	if want := (Holder{Name: strings.TrimSpace(string(comm)), PID: os.Getpid()}); got != want {
		t.Errorf("%s is held by %+v, want %+v", address, got, want)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, free := range []string{address, "nowhere", "127.0.0.1:nosuchservice"} {
		if got := Find("/", free); got != (Holder{}) || got.String() != "another process" {
			t.Errorf("%s is held by %+v", free, got)
		}
	}
}

// Who has the port of another address isn't in the way; who has it of all is.
func TestFindByAddress(t *testing.T) {
	for _, c := range []struct {
		listens string
		held    map[string]bool // by host
	}{
		{"127.0.0.1", map[string]bool{"127.0.0.1": true, "127.0.0.2": false, "0.0.0.0": true, "": true, "localhost": true, "::ffff:127.0.0.1": true}},
		{"0.0.0.0", map[string]bool{"127.0.0.1": true, "192.0.2.9": true}},
	} {
		l, err := net.Listen("tcp4", net.JoinHostPort(c.listens, "0"))
		if err != nil {
			t.Fatal(err)
		}
		_, port, err := net.SplitHostPort(l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		for host, held := range c.held {
			if got := Find("/", net.JoinHostPort(host, port)); (got != Holder{}) != held {
				t.Errorf("listening on %s, %q is held by %+v", c.listens, host, got)
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
