package podserver

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	restclient "k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/cri-streaming/pkg/streaming"
	streamcommand "k8s.io/cri-streaming/pkg/streaming/remotecommand"
)

func discard() *flushWriter {
	return &flushWriter{bufio.NewWriter(io.Discard), http.NewResponseController(httptest.NewRecorder())}
}

// echo is a runtime whose every command prints itself and repeats its input,
// and whose ports do the latter.
type echo struct{}

func (echo) Exec(_ context.Context, id string, cmd []string, in io.Reader, out, _ io.WriteCloser, _ bool, _ <-chan streamcommand.TerminalSize) error {
	if _, err := fmt.Fprintf(out, "%s: %s\n", id, strings.Join(cmd, " ")); err != nil {
		return err
	}
	if in != nil {
		_, err := io.Copy(out, in)
		return err
	}
	return nil
}

func (echo) Attach(_ context.Context, id string, _ io.Reader, out, _ io.WriteCloser, _ bool, _ <-chan streamcommand.TerminalSize) error {
	_, err := fmt.Fprintln(out, "attached to", id)
	return err
}

func (echo) PortForward(_ context.Context, id string, port int32, stream io.ReadWriteCloser) error {
	if _, err := fmt.Fprintf(stream, "%s:%d\n", id, port); err != nil {
		return err
	}
	_, err := io.Copy(stream, stream)
	return errors.Join(err, stream.Close())
}

// newStreamWorld is a Server whose runtime has a real streaming server. Both
// are reached over TCP, which is what clients of the protocols can do.
func newStreamWorld(t *testing.T) (base string, runtime *cri) {
	t.Helper()
	runtime = newCRI("")
	backend := httptest.NewUnstartedServer(nil)
	config := streaming.DefaultConfig
	config.BaseURL = &url.URL{Scheme: "http", Host: backend.Listener.Addr().String(), Path: "/"}
	streams, err := streaming.NewServer(config, echo{})
	if err != nil {
		t.Fatal(err)
	}
	backend.Config.Handler = streams
	backend.Start()
	t.Cleanup(backend.Close)
	runtime.streams = streams
	server, err := New(Config{NodeName: "n", Socket: "unused", Pods: onePod{runningPod()}, Runtime: runtime, LogDir: "/"})
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewServer(server.Handler())
	t.Cleanup(front.Close)
	return front.URL, runtime
}

func stream(t *testing.T, location string, options remotecommand.StreamOptions) {
	t.Helper()
	target, err := url.Parse(location)
	if err != nil {
		t.Fatal(err)
	}
	executor, err := remotecommand.NewSPDYExecutor(&restclient.Config{}, http.MethodPost, target)
	if err != nil {
		t.Fatal(err)
	}
	if err := executor.StreamWithContext(t.Context(), options); err != nil {
		t.Fatal(err)
	}
}

func TestExec(t *testing.T) {
	base, _ := newStreamWorld(t)
	for _, path := range []string{"/exec/ns/p/c", "/exec/ns/p/uid-1/c"} {
		var out bytes.Buffer
		stream(t, base+path+"?command=cat&command=-n&input=1&output=1", remotecommand.StreamOptions{Stdin: strings.NewReader("in"), Stdout: &out})
		if out.String() != "id-1: cat -n\nin" {
			t.Errorf("%s: %q", path, out.String())
		}
	}
}

func TestAttach(t *testing.T) {
	base, runtime := newStreamWorld(t)
	var out bytes.Buffer
	// The container has no terminal, whatever the client says.
	stream(t, base+"/attach/ns/p/c?output=1&tty=1", remotecommand.StreamOptions{Stdout: &out})
	if out.String() != "attached to id-1\n" {
		t.Errorf("%q", out.String())
	}
	if len(runtime.attached) != 1 || runtime.attached[0].Tty {
		t.Errorf("asked for %v", runtime.attached)
	}
}

func TestPortForward(t *testing.T) {
	base, _ := newStreamWorld(t)
	target, err := url.Parse(base + "/portForward/ns/p")
	if err != nil {
		t.Fatal(err)
	}
	transport, upgrader, err := spdy.RoundTripperFor(&restclient.Config{})
	if err != nil {
		t.Fatal(err)
	}
	stop, ready := make(chan struct{}), make(chan struct{})
	forwarder, err := portforward.New(spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, target), []string{":80"}, stop, ready, io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- forwarder.ForwardPorts() }()
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	ports, err := forwarder.GetPorts()
	if err != nil {
		t.Fatal(err)
	}
	got := talk(t, ports[0].Local, "hello\n", 2)
	if got != "sandbox-1:80\nhello\n" {
		t.Errorf("%q", got)
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// talk sends text to a local port and reads lines of the answer.
func talk(t *testing.T, port uint16, text string, lines int) string {
	t.Helper()
	conn, err := net.Dial("tcp", fmt.Sprintf("localhost:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	var out string
	reader := bufio.NewReader(conn)
	for range lines {
		line, err := reader.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		out += line
	}
	return out
}
