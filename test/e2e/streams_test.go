//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/scheme"
	restclient "k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/remotecommand"
)

// talker is a pod that runs until it is deleted, and listens on port 80.
const talker = `
  containers: [{name: work, image: "busybox:latest", stdin: true, command: [sh, -c, "nc -ll -p 80 -e cat & echo up; while :; do sleep 3600; done"]}]
`

// holdings are what errand and its shim hold for streams.
type holdings struct{ goroutines, fds, shimFDs int }

func (h holdings) within(more holdings) bool {
	return h.goroutines <= more.goroutines && h.fds <= more.fds && h.shimFDs <= more.shimFDs
}

func (e *errand) holdings() holdings {
	e.t.Helper()
	shim, err := e.ShimPID()
	if err != nil {
		e.t.Fatal(err)
	}
	metrics, err := e.client.CoreV1().RESTClient().Get().AbsPath("/metrics").DoRaw(e.t.Context())
	if err != nil {
		e.t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^go_goroutines (\d+)$`).FindSubmatch(metrics)
	if found == nil {
		e.t.Fatal("errand does not count its goroutines")
	}
	goroutines, err := strconv.Atoi(string(found[1]))
	if err != nil {
		e.t.Fatal(err)
	}
	return holdings{goroutines, len(glob(e.t, fmt.Sprintf("/proc/%d/fd/*", e.PID()))), len(glob(e.t, fmt.Sprintf("/proc/%d/fd/*", shim)))}
}

// letsGo takes note of what is held; the function that it returns waits until no
// more is.
func (e *errand) letsGo() (check func()) {
	e.t.Helper()
	// The first of a kind makes what stays: connections, caches.
	e.kubectl("exec", "talker", "--", "true")
	e.kubectl("logs", "talker")
	before := e.holdings()
	// What informers and timers do by themselves.
	before.goroutines += 15
	before.fds += 3
	return func() {
		e.t.Helper()
		deadline := time.Now().Add(patience)
		for {
			now := e.holdings()
			if now.within(before) {
				return
			}
			if time.Now().After(deadline) {
				e.t.Errorf("of streams that are over it is left: %+v, and not at most %+v", now, before)
				return
			}
			time.Sleep(100 * time.Millisecond) // what ends in another process tells nobody here
		}
	}
}

// A hundred sessions at once, over both protocols, each with its own input and
// output.
func TestHundredSessions(t *testing.T) {
	e := start(t)
	e.applyPod("talker", talker)
	e.wait("condition=Ready", "pod/talker")
	check := e.letsGo()

	config, err := clientcmd.BuildConfigFromFlags("", e.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	const sessions = 100
	var meeting sync.WaitGroup
	meeting.Add(sessions)
	var all sync.WaitGroup
	for i := range sessions {
		protocol := map[bool]func(*restclient.Config, []string) (remotecommand.Executor, error){true: e.spdy, false: e.webSocket}[i%2 == 0]
		all.Go(func() {
			session, err := protocol(config, []string{"sh", "-c", fmt.Sprintf("echo here; cat; echo %d >&2; exit %d", i, i%3)})
			if err != nil {
				t.Error(err)
				meeting.Done()
				return
			}
			e.meet(session, i, &meeting)
		})
	}
	all.Wait()
	check()
}

func (e *errand) spdy(config *restclient.Config, command []string) (remotecommand.Executor, error) {
	return remotecommand.NewSPDYExecutor(config, "POST", e.execURL(command).URL())
}

func (e *errand) webSocket(config *restclient.Config, command []string) (remotecommand.Executor, error) {
	return remotecommand.NewWebSocketExecutor(config, "GET", e.execURL(command).URL().String())
}

func (e *errand) execURL(command []string) *restclient.Request {
	return e.client.CoreV1().RESTClient().Post().Resource("pods").Namespace("default").Name("talker").SubResource("exec").
		VersionedParams(&v1.PodExecOptions{Command: command, Stdin: true, Stdout: true, Stderr: true}, scheme.ParameterCodec)
}

// meet runs a session. Its input comes once all others run as well.
func (e *errand) meet(session remotecommand.Executor, i int, meeting *sync.WaitGroup) {
	input := strings.Repeat(fmt.Sprintf("this is what %d says\n", i), 5000)
	stdin, feed := io.Pipe()
	var stderr bytes.Buffer
	stdout := &firstLine{then: sync.OnceFunc(func() {
		meeting.Done()
		go func() {
			meeting.Wait()
			_, err := io.WriteString(feed, input)
			feed.CloseWithError(err)
		}()
	})}
	ctx, cancel := context.WithTimeout(e.t.Context(), 2*patience)
	defer cancel()
	err := session.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: stdin, Stdout: stdout, Stderr: &stderr})
	stdout.then() // so that one that fails doesn't hold up all
	code := 0
	if exit, ok := err.(interface{ ExitStatus() int }); ok {
		code, err = exit.ExitStatus(), nil
	}
	if err != nil || code != i%3 || stdout.all.String() != "here\n"+input || stderr.String() != fmt.Sprintln(i) {
		e.t.Errorf("session %d: %v, exit code %d, %d bytes of output, stderr %q", i, err, code, stdout.all.Len(), stderr.String())
	}
}

// firstLine calls then as soon as it has a line.
type firstLine struct {
	all  bytes.Buffer
	then func()
}

func (f *firstLine) Write(p []byte) (int, error) {
	n, err := f.all.Write(p)
	if bytes.IndexByte(p, '\n') >= 0 {
		f.then()
	}
	return n, err
}

// A user at a terminal: what is typed is echoed, the size is told and told again,
// Ctrl-C reaches what runs there.
func TestTerminal(t *testing.T) {
	e := start(t)
	e.applyPod("talker", talker)
	e.wait("condition=Ready", "pod/talker")
	check := e.letsGo()
	cmd := e.kubectlCommand("exec", "-it", "talker", "--", "sh")
	terminal, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 31, Cols: 97})
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	screen := &screen{t: t, cmd: cmd, terminal: terminal, r: bufio.NewReader(terminal)}
	screen.await("# ")
	screen.enter("stty size")
	screen.await("31 97")
	if err := pty.Setsize(terminal, &pty.Winsize{Rows: 42, Cols: 123}); err != nil {
		t.Fatal(err)
	}
	// kubectl tells of it when it pleases.
	screen.enter("while [ \"$(stty size)\" != '42 123' ]; do sleep 0.1; done; echo re''sized")
	screen.await("resized")
	screen.enter("echo st''arted; sleep 3600; echo interr''upted")
	screen.await("started")
	screen.press("\x03")
	screen.await("# ") // what is typed before may go with what was interrupted
	screen.enter("tty; exit 5")
	screen.await("/dev/pts/0")
	screen.awaitHangup()
	_ = cmd.Wait() // its exit code follows
	if code := cmd.ProcessState.ExitCode(); code != 5 {
		t.Errorf("kubectl exited with %d, want the shell's 5", code)
	}
	check()
}

// screen is what a user sees.
type screen struct {
	t        *testing.T
	cmd      *exec.Cmd
	terminal *os.File
	r        *bufio.Reader
	seen     strings.Builder
}

func (s *screen) enter(line string) {
	s.t.Helper()
	s.press(line + "\n")
}

func (s *screen) press(keys string) {
	s.t.Helper()
	if _, err := s.terminal.WriteString(keys); err != nil {
		s.t.Fatal(err)
	}
}

// patiently lets the command go on only for so long: a read from the terminal ends with it, not when the terminal is closed.
func (s *screen) patiently() (stop func() bool) {
	return time.AfterFunc(patience, func() { _ = s.cmd.Process.Kill() }).Stop
}

// awaitHangup reads until the command has gone.
func (s *screen) awaitHangup() {
	defer s.patiently()()
	for {
		if _, err := s.r.ReadByte(); err != nil {
			return
		}
	}
}

// await reads until it has seen that.
func (s *screen) await(what string) {
	s.t.Helper()
	defer s.patiently()()
	s.seen.Reset()
	for !strings.HasSuffix(s.seen.String(), what) {
		b, err := s.r.ReadByte()
		if err != nil {
			s.t.Fatalf("%q does not come (%v) after:\n%s", what, err, s.seen.String())
		}
		s.seen.WriteByte(b)
	}
}

// kubectlCommand is a kubectl that is yet to run.
func (e *errand) kubectlCommand(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(e.t.Context(), filepath.Join(bin, "kubectl"), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+e.Kubeconfig(), "HOME="+e.cfg.DataDir)
	return cmd
}

// Clients that are killed leave nothing: no process of theirs in the container,
// no goroutine, no descriptor.
func TestVanishingClients(t *testing.T) {
	e := start(t)
	e.applyPod("talker", talker)
	e.wait("condition=Ready", "pod/talker")
	check := e.letsGo()
	// A number that no other process sleeps.
	seconds := fmt.Sprint(20_000_000 + os.Getpid())

	t.Run("exec", func(t *testing.T) {
		e := e.with(t)
		for _, flags := range [][]string{{}, {"-i"}, {"-it"}} {
			cmd := e.kubectlCommand(append([]string{"exec", "talker"}, append(flags, "--", "sh", "-c", "echo up; sleep "+seconds+"; true")...)...)
			e.vanish(cmd, flags)
			awaitSleepers(t, seconds, 0)
		}
	})
	t.Run("attach", func(t *testing.T) {
		e := e.with(t)
		cmd := e.kubectlCommand("attach", "-i", "talker")
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		defer stdin.Close()
		stderr, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		awaitLine(t, stderr, "If you don't see a command prompt")
		e.kill(cmd)
		if got := e.podStatus("talker"); got.Phase != v1.PodRunning {
			t.Errorf("the pod is %s", got.Phase)
		}
	})
	t.Run("logs", func(t *testing.T) {
		e := e.with(t)
		cmd := e.kubectlCommand("logs", "-f", "talker")
		e.vanish(cmd, nil)
	})
	t.Run("port-forward", func(t *testing.T) {
		e := e.with(t)
		cmd := e.kubectlCommand("port-forward", "pod/talker", ":80")
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		said := awaitLine(t, stdout, "Forwarding from 127.0.0.1:")
		_, port, _ := strings.Cut(said, "127.0.0.1:")
		port, _, _ = strings.Cut(port, " ")
		conn, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write([]byte("hello\n")); err != nil {
			t.Fatal(err)
		}
		awaitLine(t, conn, "hello")
		e.kill(cmd)
	})
	check()
}

// Nor does an errand that is killed leave a command that it ran for a client.
func TestCommandsEndWithErrand(t *testing.T) {
	e := start(t)
	e.applyPod("talker", talker)
	e.wait("condition=Ready", "pod/talker")
	seconds := fmt.Sprint(30_000_000 + os.Getpid())
	for _, flags := range [][]string{{}, {"-it"}} {
		cmd := e.kubectlCommand(append([]string{"exec", "talker"}, append(flags, "--", "sh", "-c", "echo up; sleep "+seconds+"; true")...)...)
		e.vanishWith(cmd, flags, func() {
			if err := e.Kill(); err != nil {
				t.Fatal(err)
			}
		})
		awaitSleepers(t, seconds, 0)
		_ = cmd.Wait() // it complains
		e.start()
	}
}

// vanish starts a kubectl, and kills it once it has printed "up". With -t among
// its flags it has a terminal.
func (e *errand) vanish(cmd *exec.Cmd, flags []string) {
	e.t.Helper()
	e.vanishWith(cmd, flags, func() { e.kill(cmd) })
}

// vanishWith does so, but for what it kills.
func (e *errand) vanishWith(cmd *exec.Cmd, flags []string, kill func()) {
	e.t.Helper()
	var out io.ReadCloser
	var err error
	if len(flags) > 0 && strings.Contains(flags[0], "t") {
		out, err = pty.Start(cmd)
	} else {
		var stdin io.Closer
		if stdin, err = cmd.StdinPipe(); err == nil {
			defer stdin.Close()
			if out, err = cmd.StdoutPipe(); err == nil {
				err = cmd.Start()
			}
		}
	}
	if err != nil {
		e.t.Fatal(err)
	}
	defer out.Close()
	awaitLine(e.t, out, "up")
	kill()
}

func (e *errand) kill(cmd *exec.Cmd) {
	e.t.Helper()
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		e.t.Fatal(err)
	}
	_ = cmd.Wait() // by that signal
}

// awaitLine reads up to a line that begins so, and returns it.
func awaitLine(t *testing.T, r io.Reader, prefix string) string {
	t.Helper()
	found := make(chan string, 1)
	go func() {
		for lines := bufio.NewScanner(r); lines.Scan(); {
			if strings.HasPrefix(lines.Text(), prefix) {
				found <- lines.Text()
				return
			}
		}
		close(found)
	}()
	select {
	case line, ok := <-found:
		if !ok {
			t.Fatalf("%q has not been printed", prefix)
		}
		return line
	case <-time.After(patience):
		t.Fatalf("%q is not printed", prefix)
	}
	panic("unreachable")
}

// A command that leaves most of its input unread ends as any other: with all of its output and its exit code.
func TestUnreadInput(t *testing.T) {
	e := start(t)
	e.applyPod("talker", talker)
	e.wait("condition=Ready", "pod/talker")
	input, want := strings.Repeat("more than is wanted\n", 1<<20), "more \n"+strings.Repeat("x", 1<<20)
	for _, webSockets := range []string{"true", "false"} {
		t.Run("KUBECTL_REMOTE_COMMAND_WEBSOCKETS="+webSockets, func(t *testing.T) {
			e := e.with(t)
			t.Setenv("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", webSockets)
			for range 20 {
				r := e.try(input, "exec", "-i", "talker", "--", "sh", "-c", "head -c 5; echo; head -c 1048576 /dev/zero | tr '\\0' x; exit 7")
				if r.Code != 7 || r.Stdout != want {
					t.Errorf("exit code %d, %d bytes of output, %s", r.Code, len(r.Stdout), r.Stderr)
				}
			}
		})
	}
}
