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
