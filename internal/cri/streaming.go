package cri

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"

	"errand.dev/errand/internal/connections"
	"errand.dev/errand/internal/oci"
)

// streamer serves exec, attach and port forwarding to clients that have been
// given a URL with a token. It listens on loopback, from the first such call.
type streamer struct {
	service *Service

	mu       sync.Mutex
	server   streaming.Server
	http     *http.Server
	listener *connections.Listener
}

func newStreamer(s *Service) *streamer { return &streamer{service: s} }

// get starts to listen if need be.
func (t *streamer) get() (streaming.Server, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.server != nil {
		return t.server, nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	config := streaming.DefaultConfig
	config.BaseURL = &url.URL{Scheme: "http", Host: l.Addr().String(), Path: "/"}
	server, err := streaming.NewServer(config, streamRuntime{t.service})
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	t.server, t.http = server, &http.Server{Handler: server, ReadHeaderTimeout: 10 * time.Second, ConnContext: untilPeerGoes}
	t.listener = connections.Track(l)
	go t.http.Serve(watchedListener{t.listener}) //nolint:errcheck // ends with close
	return server, nil
}

func (t *streamer) close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.http == nil {
		return nil
	}
	return errors.Join(t.http.Close(), t.listener.Cut())
}

// Exec prepares a stream to a command in a running container and returns its
// URL, which serves one connection within a minute.
func (s *Service) Exec(_ context.Context, req *runtimeapi.ExecRequest) (*runtimeapi.ExecResponse, error) {
	if _, err := s.running(req.GetContainerId()); err != nil {
		return nil, toStatus(err)
	}
	server, err := s.stream.get()
	if err != nil {
		return nil, errStreams(err)
	}
	return server.GetExec(req)
}

// Attach prepares a stream to a running container's own output and input.
func (s *Service) Attach(_ context.Context, req *runtimeapi.AttachRequest) (*runtimeapi.AttachResponse, error) {
	if _, err := s.running(req.GetContainerId()); err != nil {
		return nil, toStatus(err)
	}
	server, err := s.stream.get()
	if err != nil {
		return nil, errStreams(err)
	}
	return server.GetAttach(req)
}

// PortForward prepares a stream to ports on a ready sandbox's loopback.
func (s *Service) PortForward(_ context.Context, req *runtimeapi.PortForwardRequest) (*runtimeapi.PortForwardResponse, error) {
	if _, err := s.readySandbox(req.GetPodSandboxId()); err != nil {
		return nil, toStatus(err)
	}
	server, err := s.stream.get()
	if err != nil {
		return nil, errStreams(err)
	}
	return server.GetPortForward(req)
}

// streamRuntime is what the streams end at. Its errors are texts for the streams' clients, who are people: they have no gRPC code.
type streamRuntime struct{ s *Service }

// Exec runs a command with its streams until it exits. If the client goes first,
// or this process, it is killed with its process group: nobody else knows of it.
func (r streamRuntime) Exec(ctx context.Context, id string, cmd []string, in io.Reader, out, errs io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) error {
	c, err := r.s.running(id)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var code int
	if tty {
		code, err = r.execTerminal(ctx, c, cmd, terminalStreams{in, out, resize})
	} else {
		code, err = r.execPipes(ctx, c, cmd, in, out, errs)
	}
	if err != nil {
		return err
	}
	if code != 0 {
		return utilexec.CodeExitError{Err: errors.New("error executing command " + strconvJoin(cmd, code)), Code: code}
	}
	return nil
}

func (r streamRuntime) execPipes(ctx context.Context, c *container, cmd []string, in io.Reader, out, errs io.WriteCloser) (int, error) {
	var pipes pipeSet
	defer pipes.close()
	req := oci.ExecRequest{
		Stdin:  pipes.input(in),
		Stdout: pipes.output(out),
		Stderr: pipes.output(errs),
		Bound:  true,
	}
	if pipes.err != nil {
		return 0, pipes.err
	}
	p, err := r.s.exec(ctx, c, cmd, req)
	pipes.started()
	if err != nil {
		return 0, err
	}
	code, err := r.s.wait(ctx, p)
	pipes.drain(drainTime)
	return code, err
}

type terminalStreams struct {
	in     io.Reader
	out    io.WriteCloser
	resize <-chan remotecommand.TerminalSize
}

func (r streamRuntime) execTerminal(ctx context.Context, c *container, cmd []string, t terminalStreams) (int, error) {
	p, err := r.s.exec(ctx, c, cmd, oci.ExecRequest{Process: withTerminal(), Bound: true})
	if err != nil {
		return 0, err
	}
	master := p.Terminal()
	defer master.Close() //nolint:errcheck // nothing is buffered
	go followSize(ctx, master, t.resize)
	if t.in != nil {
		go io.Copy(master, t.in) //nolint:errcheck // ends with the terminal
	}
	var output sync.WaitGroup
	if t.out != nil {
		output.Go(func() { copyOutput(t.out, master) }) // EIO is a terminal's end
	}
	code, err := r.s.wait(ctx, p)
	_ = master.SetReadDeadline(time.Now().Add(drainTime)) // a blocking master ends by EIO
	output.Wait()
	return code, err
}

// Attach joins the streams to the container's until it exits or the client goes. A client whose input ends has gone, too, if that doesn't
// end the container's: with one that is to stay open kubectl waits for the end of its streams and of nothing else.
func (r streamRuntime) Attach(ctx context.Context, id string, in io.Reader, out, errs io.WriteCloser, _ bool, resize <-chan remotecommand.TerminalSize) error {
	c, err := r.s.running(id)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var pipes pipeSet
	defer pipes.close()
	req := oci.AttachRequest{Stdin: in != nil, Stdout: pipes.output(out), Stderr: pipes.output(errs)}
	if pipes.err != nil {
		return pipes.err
	}
	a, err := r.s.cfg.Runtime.Attach(ctx, c.id, req)
	pipes.started()
	if err != nil {
		return err
	}
	defer a.Close() //nolint:errcheck // only detaches
	if input := a.Input(); input != nil {
		defer input.Close() //nolint:errcheck // nothing is buffered
		if c.settings().GetTty() {
			go followSize(ctx, input, resize)
		}
		if in != nil {
			go func() {
				_, err := io.Copy(input, in) // ends with either side
				if c.settings().GetStdinOnce() && !c.settings().GetTty() {
					input.Close() //nolint:errcheck // closed twice is closed
				} else if err == nil {
					cancel()
				}
			}()
		}
	}
	err = a.Wait(ctx)
	if ctx.Err() != nil {
		err = a.Close() // the client has gone; what is on its way to it may arrive
	}
	pipes.drain(drainTime)
	return err
}

func followSize(ctx context.Context, terminal *os.File, resize <-chan remotecommand.TerminalSize) {
	if resize == nil {
		return
	}
	for {
		select {
		case <-ctx.Done():
			return
		case size, ok := <-resize:
			if !ok {
				return
			}
			conn, err := terminal.SyscallConn()
			if err != nil {
				return
			}
			_ = conn.Control(func(fd uintptr) {
				_ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: size.Height, Col: size.Width})
			})
		}
	}
}
