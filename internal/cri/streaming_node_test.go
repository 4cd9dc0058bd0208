//go:build node

package cri_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	utilexec "k8s.io/utils/exec"

	"errand.dev/errand/internal/slowness"
)

// stream runs a URL's stream with kubectl's own client.
func stream(t *testing.T, at string, o remotecommand.StreamOptions) error {
	t.Helper()
	u, err := url.Parse(at)
	must(t, err)
	e, err := remotecommand.NewSPDYExecutor(&rest.Config{Host: u.Host}, http.MethodPost, u)
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), slowness.Times(30*time.Second))
	defer cancel()
	return e.StreamWithContext(ctx, o)
}

// sizes is a terminal's size that never changes.
type sizes chan remotecommand.TerminalSize

func (s sizes) Next() *remotecommand.TerminalSize {
	size, ok := <-s
	if !ok {
		return nil
	}
	return &size
}

func TestExecStream(t *testing.T) {
	l := newMachine(t).start()
	defer l.destroy()
	_, id := l.run("pod", "sleep 1000")
	exec := func(tty bool, cmd ...string) string {
		resp, err := l.Exec(t.Context(), &runtimeapi.ExecRequest{ContainerId: id, Cmd: cmd, Stdin: true, Stdout: true, Stderr: !tty, Tty: tty})
		must(t, err)
		return resp.GetUrl()
	}
	var out, stderr bytes.Buffer
	err := stream(t, exec(false, "sh", "-c", "cat; echo err >&2; exit 3"), remotecommand.StreamOptions{
		Stdin: strings.NewReader("in"), Stdout: &out, Stderr: &stderr,
	})
	var exit utilexec.ExitError
	if !errors.As(err, &exit) || exit.ExitStatus() != 3 || out.String() != "in" || stderr.String() != "err\n" {
		t.Errorf("pipes: %q, %q, %v", out.String(), stderr.String(), err)
	}

	// What a client can't have is said in words for people.
	want := `error executing command in container: OCI runtime exec failed: exec failed: unable to start container process: exec: "nosuch": executable file not found in $PATH`
	if err := stream(t, exec(false, "nosuch"), remotecommand.StreamOptions{Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: io.Discard}); err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}

	out.Reset()
	size := make(sizes, 1)
	size <- remotecommand.TerminalSize{Width: 77, Height: 33}
	defer close(size)
	err = stream(t, exec(true, "sh", "-c", "read line; stty size; test -t 0 && echo tty $line"), remotecommand.StreamOptions{
		Stdin: strings.NewReader("hello\n"), Stdout: &out, Tty: true, TerminalSizeQueue: size,
	})
	if err != nil || !strings.Contains(out.String(), "tty hello") {
		t.Errorf("terminal: %q, %v", out.String(), err)
	}

	// A client that goes takes its command with it.
	u := exec(false, "sleep", "1000")
	parsed, err := url.Parse(u)
	must(t, err)
	e, err := remotecommand.NewSPDYExecutor(&rest.Config{Host: parsed.Host}, http.MethodPost, parsed)
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := e.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: io.Discard, Stdin: strings.NewReader(""), Stderr: io.Discard}); err == nil {
		t.Error("a cancelled stream succeeded")
	}
}

func TestAttachStream(t *testing.T) {
	l := newMachine(t).start()
	defer l.destroy()
	ctx := t.Context()
	pod, err := l.RunPodSandbox(ctx, l.pod("pod"), "")
	must(t, err)
	config := shell("c", "read a; echo got $a; echo oops >&2; exit 4")
	config.Stdin, config.StdinOnce = true, true
	id, err := l.CreateContainer(ctx, pod, config, nil)
	must(t, err)
	must(t, l.StartContainer(ctx, id))
	resp, err := l.Attach(ctx, &runtimeapi.AttachRequest{ContainerId: id, Stdin: true, Stdout: true, Stderr: true})
	must(t, err)
	var out, stderr bytes.Buffer
	err = stream(t, resp.GetUrl(), remotecommand.StreamOptions{Stdin: strings.NewReader("it\n"), Stdout: &out, Stderr: &stderr})
	if err != nil || out.String() != "got it\n" || stderr.String() != "oops\n" {
		t.Errorf("attached: %q, %q, %v", out.String(), stderr.String(), err)
	}
	if st := l.wait(id); st.GetExitCode() != 4 {
		t.Errorf("status %v", st)
	}
}

// Where a container's input stays open, a client whose own ends is let go, and the container runs on for the next.
func TestAttachLetsGo(t *testing.T) {
	l := newMachine(t).start()
	defer l.destroy()
	for _, tty := range []bool{false, true} {
		t.Run(fmt.Sprint("tty ", tty), func(t *testing.T) {
			ctx := t.Context()
			pod, err := l.RunPodSandbox(ctx, l.pod(fmt.Sprint("pod-", tty)), "")
			must(t, err)
			config := shell("c", "read a; echo got $a; read b; test $a$b = onetwo")
			config.Stdin, config.Tty = true, tty
			id, err := l.CreateContainer(ctx, pod, config, nil)
			must(t, err)
			must(t, l.StartContainer(ctx, id))
			for _, said := range []string{"one\n", "two\n"} {
				resp, err := l.Attach(ctx, &runtimeapi.AttachRequest{ContainerId: id, Stdin: true, Stdout: true, Tty: tty})
				must(t, err)
				must(t, stream(t, resp.GetUrl(), remotecommand.StreamOptions{Stdin: strings.NewReader(said), Stdout: io.Discard, Tty: tty}))
			}
			if st := l.wait(id); st.GetExitCode() != 0 {
				t.Errorf("status %v", st)
			}
		})
	}
}

func TestPortForwardStream(t *testing.T) {
	l := newMachine(t).start()
	defer l.destroy()
	ctx := t.Context()
	pod, id := l.run("pod", "exec httpd -f -p 127.0.0.1:8080 -h /etc")
	for {
		_, _, err := l.ExecSync(ctx, id, []string{"sh", "-c", "nc 127.0.0.1 8080 < /dev/null"}, slowness.Times(10*time.Second))
		if err == nil {
			break // it listens
		}
		must(t, ctx.Err())
	}
	address, stop := l.forward(pod, 8080)
	page, err := http.Get("http://" + address + "/hostname")
	must(t, err)
	body, err := io.ReadAll(page.Body)
	must(t, errors.Join(err, page.Body.Close()))
	if string(body) != "pod\n" {
		t.Errorf("forwarded: %s %q", page.Status, body)
	}
	stop()
}

// Connections that a program in the pod resets end by themselves: kubectl would end all others at an error.
func TestPortForwardOutlivesAReset(t *testing.T) {
	l := newMachine(t).start()
	defer l.destroy()
	config := l.pod("pod")
	config.Linux = &runtimeapi.LinuxPodSandboxConfig{SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
		NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE},
	}}
	pod, err := l.RunPodSandbox(t.Context(), config, "")
	must(t, err)
	program, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer program.Close()
	go func() {
		for {
			conn, err := program.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Read(make([]byte, 1))
			_ = conn.(*net.TCPConn).SetLinger(0)
			_ = conn.Close()
		}
	}()
	address, stop := l.forward(pod, program.Addr().(*net.TCPAddr).Port)
	for range 3 {
		conn, err := net.Dial("tcp", address)
		must(t, err)
		_, err = conn.Write([]byte("x"))
		must(t, err)
		_, err = io.ReadAll(conn)
		must(t, errors.Join(err, conn.Close()))
	}
	stop()
}

// forward forwards a port by kubectl's own client. stop fails the test if the forwarding has ended before.
func (l *life) forward(pod string, port int) (address string, stop func()) {
	t := l.machine.t
	t.Helper()
	resp, err := l.PortForward(t.Context(), &runtimeapi.PortForwardRequest{PodSandboxId: pod, Port: []int32{int32(port)}})
	must(t, err)
	u, err := url.Parse(resp.GetUrl())
	must(t, err)
	transport, upgrader, err := spdy.RoundTripperFor(&rest.Config{Host: u.Host})
	must(t, err)
	end, ready := make(chan struct{}), make(chan struct{})
	fw, err := portforward.New(spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, u), []string{fmt.Sprint("0:", port)}, end, ready, io.Discard, io.Discard)
	must(t, err)
	done := make(chan error, 1)
	go func() { done <- fw.ForwardPorts() }()
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	ports, err := fw.GetPorts()
	must(t, err)
	return fmt.Sprintf("127.0.0.1:%d", ports[0].Local), func() {
		t.Helper()
		close(end)
		must(t, <-done)
	}
}
