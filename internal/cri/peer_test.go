package cri

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// What is served on a connection ends with its peer, and not when the server
// takes the connection away from HTTP, which calls a pending read off.
func TestContextEndsWithThePeer(t *testing.T) {
	served := make(chan context.Context)
	release := make(chan struct{})
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		go func() {
			for buf := make([]byte, 100); ; {
				if _, err := conn.Read(buf); err != nil {
					return
				}
			}
		}()
		served <- r.Context()
		<-release
	}))
	srv.Listener = watchedListener{srv.Listener}
	srv.Config.ConnContext = untilPeerGoes
	srv.Start()
	defer srv.Close()
	defer close(release)

	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\nmore")); err != nil {
		t.Fatal(err)
	}
	ctx := <-served
	if ctx.Err() != nil {
		t.Fatal("it has ended at once")
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ctx.Done():
	case <-time.After(time.Minute):
		t.Error("it goes on, and its peer has gone")
	}
}
