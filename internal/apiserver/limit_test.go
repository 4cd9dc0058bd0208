package apiserver

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"errand.dev/errand/internal/connections"
)

// dialFrom opens a connection whose other end is one of loopback's addresses,
// and says whether it is kept: a kept one is greeted.
func dialFrom(t *testing.T, from string, to net.Addr) (kept bool, conn net.Conn) {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := d.DialContext(t.Context(), "tcp4", to.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_, err = conn.Read(make([]byte, 1))
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Fatal(err)
	}
	return err == nil, conn
}

// No address has more than its share; one that closes has it back.
func TestConnectionsPerAddress(t *testing.T) {
	inner, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := limitPerAddress(inner, 2, netip.MustParseAddr("127.0.0.9"))
	defer l.Close()
	closed := make(chan struct{})
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if _, err := c.Write([]byte{1}); err != nil {
				t.Error(err)
			}
			go func() {
				_, _ = c.Read(make([]byte, 1)) // until the other end closes
				c.Close()
				c.Close() // as servers may: it counts once
				closed <- struct{}{}
			}()
		}
	}()
	_, first := dialFrom(t, "127.0.0.2", l.Addr())
	for _, c := range []struct {
		from string
		kept bool
	}{{"127.0.0.2", true}, {"127.0.0.2", false}, {"127.0.0.3", true}, {"127.0.0.2", false}, {"127.0.0.9", true}, {"127.0.0.9", true}, {"127.0.0.9", true}} {
		if kept, _ := dialFrom(t, c.from, l.Addr()); kept != c.kept {
			t.Errorf("a connection from %s is kept: %v, want %v", c.from, kept, c.kept)
		}
	}
	first.Close()
	<-closed
	for _, want := range []bool{true, false} {
		if kept, _ := dialFrom(t, "127.0.0.2", l.Addr()); kept != want {
			t.Errorf("after one was closed, another is kept: %v, want %v", kept, want)
		}
	}
}

// A pod whose client has sent more than was read gets the answer, as anybody does.
func TestLastBytesArriveInPods(t *testing.T) {
	inner, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := connections.Track(limitPerAddress(inner, 2, netip.Addr{}))
	defer l.Close()
	peer, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := peer.Write(make([]byte, 1<<16)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, "answer"); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(peer); err != nil || string(got) != "answer" {
		t.Errorf("the peer got %q, %v", got, err)
	}
}
