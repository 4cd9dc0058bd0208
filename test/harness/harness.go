// Package harness runs the built errand as a user would, for tests, benchmarks
// and nothing else: real binaries, a data directory of its own, a registry on
// loopback, a real kubectl.
package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"errand.dev/errand/internal/instance"
	"errand.dev/errand/internal/leakcheck"
	"errand.dev/errand/internal/slowness"
)

// Patience bounds waits in tests: far more than anything takes, so that only a hang
// meets it.
func Patience() time.Duration { return slowness.Times(time.Minute) }

// Config says which errand to run.
type Config struct {
	// Bin is the folder of errand, errand-shim, runc and kubectl.
	Bin string
	// DataDir is the errand's data directory; its folder must exist.
	DataDir string
	// CRI is the path of a socket: if it is set, errand cri is run there, and not
	// errand serve.
	CRI string
	// RegistriesConf points image names at a registry on loopback; it may be
	// empty where nothing is pulled.
	RegistriesConf string
	// Args are further arguments of errand serve, or of errand cri.
	Args []string
	// Log receives what errand prints, besides what Log() keeps.
	Log io.Writer
}

// Errand is an errand serve that has been started.
type Errand struct {
	cfg    Config
	cmd    *exec.Cmd
	log    *tail
	notify *Notify
	began  time.Time
	// done is closed when the process has been waited for; err is its end.
	done chan struct{}
	err  error
	// StartTime is how long it took from exec to READY=1, known once it was
	// awaited.
	StartTime time.Duration
}

// Start runs errand serve and returns once it has said READY=1 to its
// supervisor (sd_notify(3)).
func Start(ctx context.Context, cfg Config) (*Errand, error) {
	e, err := Launch(cfg)
	if err != nil {
		return nil, err
	}
	if err := e.AwaitReady(ctx); err != nil {
		return nil, errors.Join(err, e.Kill())
	}
	return e, nil
}

// Launch runs errand serve and returns at once: it may be anywhere on its way
// to ready.
func Launch(cfg Config) (*Errand, error) {
	notify, err := ListenNotify()
	if err != nil {
		return nil, err
	}
	args := []string{"serve", "--data-dir", cfg.DataDir, "--listen", "127.0.0.1:0"}
	if cfg.CRI != "" {
		args = []string{"cri", "--data-dir", cfg.DataDir, "--listen", "unix://" + cfg.CRI}
	}
	if cfg.RegistriesConf != "" {
		args = append(args, "--registries-conf", cfg.RegistriesConf)
	}
	e := &Errand{cfg: cfg, log: &tail{}, notify: notify, done: make(chan struct{})}
	e.cmd = exec.Command(filepath.Join(cfg.Bin, "errand"), append(args, cfg.Args...)...)
	e.cmd.Env = append(os.Environ(), notify.Env())
	e.cmd.Stderr = e.log
	if cfg.Log != nil {
		e.cmd.Stderr = io.MultiWriter(e.log, cfg.Log)
	}
	e.began = time.Now()
	if err := e.cmd.Start(); err != nil {
		notify.Close()
		return nil, fmt.Errorf("start errand: %w", err)
	}
	go func() {
		e.err = e.cmd.Wait()
		notify.Close()
		close(e.done)
	}()
	return e, nil
}

// AwaitReady returns once errand serve, launched but not yet awaited, has said
// READY=1. An error leaves the process as it is, running or ended.
func (e *Errand) AwaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, Patience())
	defer cancel()
	if err := e.notify.Await(ctx); err != nil {
		return fmt.Errorf("errand did not become ready: %w; it said:\n%s", err, e.log)
	}
	e.StartTime = time.Since(e.began)
	return nil
}

// PID is the process's.
func (e *Errand) PID() int { return e.cmd.Process.Pid }

// Names are this errand's names on the host.
func (e *Errand) Names() (instance.Names, error) { return instance.For(e.cfg.DataDir) }

// ShimPID is the process of this errand's shim, found by its command line.
func (e *Errand) ShimPID() (int, error) {
	names, err := e.Names()
	if err != nil {
		return 0, err
	}
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return 0, err
	}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended meanwhile
		}
		argv := strings.Split(string(b), "\x00")
		if filepath.Base(argv[0]) == "errand-shim" && slices.Contains(argv, names.RuntimeDir) {
			return strconv.Atoi(filepath.Base(filepath.Dir(path)))
		}
	}
	return 0, fmt.Errorf("no errand-shim runs for %s", names.RuntimeDir)
}

// Log is the last of what it printed to standard error.
func (e *Errand) Log() string { return e.log.String() }

// Done is closed when the process has ended.
func (e *Errand) Done() <-chan struct{} { return e.done }

// Kubeconfig is the path of the administrator's kubeconfig.
func (e *Errand) Kubeconfig() string { return filepath.Join(e.cfg.DataDir, "kubeconfig") }

// Kill ends the process as a crash would (SIGKILL) and waits for it.
func (e *Errand) Kill() error {
	if err := e.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill errand: %w", err)
	}
	<-e.done
	return nil
}

// Stop ends the process with SIGTERM and returns how long it took. Containers
// go on.
func (e *Errand) Stop(ctx context.Context) (time.Duration, error) {
	return e.StopBy(ctx, syscall.SIGTERM)
}

// StopBy ends the process with a signal at which it should end well, and
// returns how long it took.
func (e *Errand) StopBy(ctx context.Context, sig os.Signal) (time.Duration, error) {
	began := time.Now()
	if err := e.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return 0, fmt.Errorf("stop errand: %w", err)
	}
	select {
	case <-e.done:
	case <-ctx.Done():
		return 0, errors.Join(fmt.Errorf("errand did not stop: %w; it said:\n%s", ctx.Err(), e.log), e.Kill())
	}
	if e.err != nil {
		return 0, fmt.Errorf("errand ended with %w; it said:\n%s", e.err, e.log)
	}
	return time.Since(began), nil
}

// Drain ends the containers and takes everything off the host that is not in
// the data directory. errand serve must have ended.
func (e *Errand) Drain(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, filepath.Join(e.cfg.Bin, "errand"), "drain", "--data-dir", e.cfg.DataDir).CombinedOutput()
	if err != nil {
		return fmt.Errorf("errand drain: %w: %s", err, out)
	}
	return nil
}

// takeOffTimeout bounds TakeOff: far more than it takes.
const takeOffTimeout = time.Minute

// TakeOff drains an errand that has ended, also where ctx has, and looks whether
// it left something on the host.
func (e *Errand) TakeOff(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), takeOffTimeout)
	defer cancel()
	if err := e.Drain(ctx); err != nil {
		return err
	}
	names, err := e.Names()
	if err != nil {
		return err
	}
	left, err := leakcheck.Left(names, e.cfg.DataDir)
	for _, l := range left {
		err = errors.Join(err, fmt.Errorf("errand left on this machine: %s", l))
	}
	return err
}

// Result is what a command printed.
type Result struct {
	Stdout, Stderr string
	// Code is its exit code.
	Code int
}

// Kubectl runs kubectl against this errand, with stdin as its input. A kubectl
// that fails is a Result; the error is for one that could not run.
func (e *Errand) Kubectl(ctx context.Context, stdin string, args ...string) (Result, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(e.cfg.Bin, "kubectl"), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+e.Kubeconfig(), "HOME="+e.cfg.DataDir)
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	r := Result{Stdout: stdout.String(), Stderr: stderr.String(), Code: cmd.ProcessState.ExitCode()}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return r, fmt.Errorf("kubectl %s: %w", strings.Join(args, " "), err)
	}
	if ctx.Err() != nil {
		return r, fmt.Errorf("kubectl %s: %w; it said: %s%s", strings.Join(args, " "), ctx.Err(), r.Stdout, r.Stderr)
	}
	return r, nil
}

// Client is a client-go clientset for this errand, without a rate limit.
func (e *Errand) Client() (kubernetes.Interface, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", e.Kubeconfig())
	if err != nil {
		return nil, fmt.Errorf("read errand's kubeconfig: %w", err)
	}
	cfg.QPS = -1
	return kubernetes.NewForConfig(cfg)
}

// tail keeps the last of what is written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

// tailBytes is how much a tail keeps.
const tailBytes = 64 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if len(t.b) > tailBytes {
		t.b = append(t.b[:0], t.b[len(t.b)-tailBytes:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}
