// Package shim is errand-shim: the resident parent of all containers, which lets them outlive errand.
//
// It owns the containers' processes (it starts them, by package launch or through an OCI runtime, reaps them and records how
// they ended),
// their output (package output) and what is left of them on disk and in the cgroup tree until they are deleted. It decides
// nothing: which containers run, with which spec, and for how long is errand's business (package oci is its client, package
// shimapi the protocol between the two).
//
// It is small on purpose: one process of a few MB for all containers, which nobody has a reason to restart, and which
// imports nothing but the standard library (without net) and golang.org/x/sys.
package shim

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"errand.dev/errand/internal/oci/shim/cgroup"
	"errand.dev/errand/internal/oci/shim/launch"
	"errand.dev/errand/internal/oci/shim/output"
	"errand.dev/errand/internal/oci/shimapi"
)

// Config of a Shim.
type Config struct {
	// Dir holds the socket and the containers' state. One shim at a time lives on it.
	Dir string
	// Cgroup is the cgroup (absolute path) that the shim moves itself to, so that whoever stops errand's own cgroup
	// doesn't stop the containers; "" to stay.
	Cgroup string
	// OpenFiles is the soft limit of open files that containers start with unless they ask for another; 0 for the shim's.
	OpenFiles uint64
	// Build is the version to tell clients.
	Build string
	// Log takes the few lines that the shim has to say.
	Log *log.Logger
}

// Shim is the parent of all containers of one errand.
type Shim struct {
	cfg      Config
	log      *log.Logger
	instance string
	tree     *cgroup.Tree
	reaper   *reaper
	pump     *output.Pump
	launcher func() *launch.Launcher // nil where the kernel doesn't do
	lock     *os.File                // held for as long as the process lives

	mu         sync.Mutex
	containers map[string]*container
	exits      []*container  // in order of their seq
	seq        uint64        // of the last exit
	changed    chan struct{} // closed and replaced at each exit
	draining   bool
	active     int           // containers starting or running
	idle       chan struct{} // closed once draining and not active
	lastFile   uint64        // numbers temporary files
}

// New takes hold of cfg.Dir and cleans up after a shim that was killed there. Errors: ErrRunning.
func New(cfg Config) (*Shim, error) {
	tree, err := cgroup.Open()
	if err != nil {
		return nil, err
	}
	pump, err := output.NewPump()
	if err != nil {
		return nil, err
	}
	s := &Shim{
		cfg: cfg, log: cfg.Log, instance: rand.Text(), tree: tree, pump: pump, reaper: newReaper(),
		containers: map[string]*container{}, changed: make(chan struct{}), idle: make(chan struct{}),
	}
	s.launcher = sync.OnceValue(s.findLauncher)
	if err := os.MkdirAll(s.path("containers"), 0o700); err != nil {
		return nil, err
	}
	if s.lock, err = lockFile(s.path("shim.lock")); err != nil {
		return nil, err
	}
	return s, nil
}

// ErrRunning says that another shim lives on the directory.
var ErrRunning = errors.New("another errand-shim is running")

// lockPatience gives a shim that has been drained or killed the time to be gone.
const lockPatience = 2 * time.Second

// lockFile locks a file for the life of the process. The kernel lets go of it at any kind of death.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	locked := make(chan error, 1)
	go func() { locked <- unix.Flock(int(f.Fd()), unix.LOCK_EX) }()
	select {
	case err = <-locked:
	case <-time.After(lockPatience):
		// The goroutine keeps the file, but the caller has nothing left to do but to exit.
		return nil, fmt.Errorf("%w: %s is locked", ErrRunning, path)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// Run serves clients until ctx ends or a client drains the shim, and no container runs any more. It calls ready once it
// serves.
func (s *Shim) Run(ctx context.Context, ready func()) error {
	// Children of containers that nobody waits for come to us rather than to init.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become subreaper: %w", err)
	}
	// In the background, as the kernel may take 20 ms for it. Where its children start doesn't matter: the OCI runtime moves
	// containers to cgroups of their own.
	go s.leaveCgroup()
	s.reaper.protect()
	stop := catchSignals(s.reaper)
	defer stop()
	go s.reaper.spawner()
	if err := s.recover(); err != nil {
		return err
	}
	listener, err := listen(s.path(shimapi.SocketName))
	if err != nil {
		return err
	}
	defer listener.Close()
	failed := make(chan error, 2)
	go func() { failed <- s.pump.Run() }()
	go func() { failed <- s.accept(listener) }()
	ready()
	select {
	case <-ctx.Done():
		s.drain()
	case <-s.idle:
	case err := <-failed:
		return err
	}
	<-s.idle
	return nil
}

func (s *Shim) leaveCgroup() {
	if s.cfg.Cgroup == "" {
		return
	}
	if err := s.tree.Join(s.cfg.Cgroup); err != nil {
		s.log.Printf("stays in errand's cgroup: %v", err)
	}
}

// catchSignals wakes the reaper for every dead child, and swallows what a terminal sends. They are caught rather than
// ignored because containers would inherit ignored signals.
func catchSignals(r *reaper) (stop func()) {
	children, others := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	signal.Notify(others, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGPIPE)
	go r.run(children)
	return func() {
		signal.Stop(children)
		signal.Stop(others)
	}
}

// path of a file in the shim's directory.
func (s *Shim) path(elem ...string) string {
	return filepath.Join(append([]string{s.cfg.Dir}, elem...)...)
}

// tempName is a new name, short enough for a socket, in the shim's directory.
func (s *Shim) tempName(suffix string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastFile++
	return s.path(fmt.Sprintf("%d.%s", s.lastFile, suffix))
}

// errorf makes an error for the wire.
func errorf(code shimapi.Code, format string, args ...any) error {
	return &shimapi.Error{Code: code, Message: fmt.Sprintf(format, args...)}
}
