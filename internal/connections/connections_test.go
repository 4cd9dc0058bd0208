package connections

import (
	"bytes"
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"
)

// pair is a connection of a Listener, and its peer's side.
func pair(t *testing.T, network, address string) (*Listener, net.Conn, net.Conn) {
	t.Helper()
	raw, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	l := Track(raw)
	t.Cleanup(func() { l.Close() })
	peer, err := net.Dial(network, raw.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { peer.Close() })
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if err := peer.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return l, c, peer
}

// A peer that sends on and on gets all that was sent to it before the close, and then the end.
func TestLastBytesArrive(t *testing.T) {
	for network, address := range map[string]string{"tcp": "127.0.0.1:0", "unix": filepath.Join(t.TempDir(), "s")} {
		t.Run(network, func(t *testing.T) {
			_, c, peer := pair(t, network, address)
			chunk := bytes.Repeat([]byte("unwanted"), 1<<13)
			if _, err := peer.Write(chunk); err != nil { // it is there, and nobody reads it
				t.Fatal(err)
			}
			const answer = "exit code 7"
			if _, err := io.WriteString(c, answer); err != nil {
				t.Fatal(err)
			}
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			for range 100 {
				if _, err := peer.Write(chunk); err != nil {
					t.Fatalf("more can't be written: %v", err)
				}
			}
			if got, err := io.ReadAll(peer); err != nil || string(got) != answer {
				t.Errorf("the peer got %q, %v", got, err)
			}
		})
	}
}

// Once closed, a connection is that for who had it, and its peer's end ends it.
func TestClosedIsClosed(t *testing.T) {
	l, c, peer := pair(t, "tcp", "127.0.0.1:0")
	read := make(chan error)
	go func() {
		_, err := c.Read(make([]byte, 1))
		read <- err
	}()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-read; !errors.Is(err, net.ErrClosed) {
		t.Errorf("who read gets %v", err)
	}
	_, readErr := c.Read(make([]byte, 1))
	_, writeErr := c.Write([]byte("x"))
	for _, err := range []error{readErr, writeErr, c.SetDeadline(time.Time{}), c.Close()} {
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("it says %v", err)
		}
	}
	if err := peer.Close(); err != nil {
		t.Fatal(err)
	}
	l.lingering.Wait()
	if len(l.conns) != 0 {
		t.Error("it is there still")
	}
}

// Cut waits for no peer.
func TestCut(t *testing.T) {
	l, open, peer := pair(t, "tcp", "127.0.0.1:0")
	if err := l.Cut(); err != nil {
		t.Fatal(err)
	}
	if _, err := open.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("an open one says %v", err)
	}
	if _, err := io.ReadAll(peer); err != nil {
		t.Error(err)
	}

	l, lingers, _ := pair(t, "tcp", "127.0.0.1:0")
	if err := lingers.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Cut(); err != nil {
		t.Fatal(err)
	}

	late, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after that one is accepted: %v", err)
	}
}
