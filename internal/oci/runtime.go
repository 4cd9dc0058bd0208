// Package oci turns OCI bundles into running processes that outlive errand.
//
// It owns the connection to errand-shim, the resident parent of all containers, which it starts when there is none. It
// doesn't make bundles, root file systems, cgroups of pods or networks (package cri does), and knows nothing of the API's
// objects. The protocol is package shimapi, the other side of it package shim.
//
// # Lives
//
// The shim keeps every container from its Run to its Delete, over any number of errands: a new one learns from List and
// Events what has become of its predecessor's containers. If the shim itself dies, its containers lose their parent: calls
// in flight return ErrParentLost, the channel of Events is closed, and the next call starts another shim, which kills
// what is left of the containers and reports them as exited with code 137 and Reason ReasonShimLost.
//
// # systemd
//
// The shim leaves errand's cgroup for Config.CgroupParent + "/shim". A unit that runs errand should have KillMode=process
// all the same: it's what says that errand's children aren't errand, and where the shim may not change its cgroup it's what
// keeps the containers alive when errand is stopped.
package oci

import (
	"context"
	"os"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"errand.dev/errand/internal/oci/shimapi"
)

// Runtime runs OCI bundles under a resident parent process that outlives errand. All methods may be called concurrently; a
// bound on how many containers start at once is the caller's.
//
// Besides what the methods say, each may return ErrParentLost or ctx's error; unless said otherwise it isn't known then
// whether the call had its effect.
type Runtime interface {
	// Run creates and starts the container whose OCI bundle (config.json, rootfs) is at req.Bundle, and returns the pid of its
	// first process. On failure nothing is left of it, also if ctx ended; but after ErrParentLost it may be in List, as lost, and if
	// errand itself is killed meanwhile an empty cgroup may be left, for whoever owns its parent to remove.
	// Errors: *StartError if the container itself is to blame (no such command, ...), *RuntimeError if the OCI runtime failed, ErrExists,
	// ErrDraining, ErrInvalid.
	Run(ctx context.Context, req RunRequest) (pid int, err error)
	// Signal signals a container's first process, or with all every process in its cgroup. Having exited is no error.
	// Errors: ErrNotFound.
	Signal(ctx context.Context, id string, sig syscall.Signal, all bool) error
	// Delete kills the container if it runs, waits for its end and removes all that is left of it but its bundle and log.
	// It is the acknowledgement of the container's exit: afterwards neither List nor Events tell of it. That there is no such
	// container is no error.
	Delete(ctx context.Context, id string) error
	// Update changes a running container's limits to those in r; fields not set there remain. Errors: ErrNotFound, ErrNotRunning,
	// *RuntimeError.
	Update(ctx context.Context, id string, r *specs.LinuxResources) error
	// ReopenLog opens the container's log file at its path anew, after it has been renamed. Errors: ErrNotFound.
	ReopenLog(ctx context.Context, id string) error
	// Exec starts a process in a running container. Errors: ErrNotFound, ErrNotRunning, *StartError, *RuntimeError.
	Exec(ctx context.Context, id string, req ExecRequest) (Process, error)
	// Attach copies what a running container writes from now on, and gives access to its stdin. Errors: ErrNotFound, ErrNotRunning.
	Attach(ctx context.Context, id string, req AttachRequest) (Attachment, error)
	// List returns every container that isn't deleted, in no particular order.
	List(ctx context.Context) ([]Status, error)
	// Events delivers the exit of every container that isn't deleted, first those known, then new ones as they happen: each
	// once, exactly as it was recorded, and not before its Run has returned. Another call begins anew. The channel is
	// closed when ctx ends or the parent is lost; Err tells which.
	Events(ctx context.Context) (<-chan Event, error)
	// Err tells why the last channel of Events that was closed was: ErrParentLost or ctx's error.
	Err() error
}

// RunRequest describes a container to Run.
type RunRequest struct {
	// ID of the container: 1 to 128 letters, digits, '_', '.' or '-'.
	ID string
	// Bundle is the absolute path of the OCI bundle's directory. Its linux.cgroupsPath must be set and absolute; its
	// process.terminal must be Terminal.
	Bundle string
	// Handler is the OCI runtime by its name in Config.Handlers, "" for the default one.
	Handler string
	// LogPath is the absolute path of the log file (CRI format), "" to discard the output. Its directory must exist.
	LogPath string
	// LogMaxLine is the longest line in bytes that the log has as one record, at most 1 MiB; longer ones are split. 0 = 16 KiB.
	LogMaxLine int
	// LogMaxSize is the size in bytes at which the log is rotated, and LogMaxFiles how many files are kept, the current one
	// included (at least 2): what KubeletConfiguration's containerLogMaxSize and containerLogMaxFiles mean. 0 lets the log grow. A shim
	// of before these fields lets it grow, too.
	LogMaxSize  int64
	LogMaxFiles int
	// Stdin keeps a pipe to the container's stdin open (without, it is /dev/null), StdinOnce until the first client that has
	// attached with stdin has gone. Terminal makes stdin, stdout and stderr a terminal.
	Stdin, StdinOnce, Terminal bool
}

// State of a container.
type State = shimapi.State

// The states.
const (
	Running = shimapi.Running
	Exited  = shimapi.Exited
)

// ReasonShimLost is the Reason of a container that was killed because its parent died.
const ReasonShimLost = shimapi.ReasonShimLost

// Status is what the parent knows of a container.
type Status struct {
	ID    string
	Pid   int // of its first process; 0 if it was lost while it started
	State State
	// ExitCode and all below are set once State is Exited. It is 128+n if signal n ended the first process.
	ExitCode  int
	StartedAt time.Time // set in both states
	ExitedAt  time.Time
	OOMKilled bool   // the kernel killed a process of the container for want of memory (which needn't be the first one)
	Reason    string // "", or why the exit isn't the process's own: ReasonShimLost
}

// Event is the exit of a container.
type Event struct{ Status }

// ExecRequest describes a process to start in a container.
type ExecRequest struct {
	// Process as in an OCI config; all of Args, Cwd, User and Env are taken from here, none from the container.
	Process *specs.Process
	// Stdin, Stdout and Stderr are the process's, nil for /dev/null. They are made blocking, and are still the caller's: to see the
	// end of the output the caller closes its own after Exec. Not with Process.Terminal.
	// If the process can't be started the OCI runtime may have written why to Stderr, besides the error returned.
	Stdin, Stdout, Stderr *os.File
	// Bound ends the process, with its process group, when errand dies or Process.Close is called before it has ended.
	Bound bool
}

// Process is one started by Exec. It doesn't outlive its container, but goes on without errand unless it is bound.
type Process interface {
	// Pid in errand's PID namespace.
	Pid() int
	// Wait returns the exit code (128+n after signal n). Errors: ErrParentLost, ctx's.
	Wait(ctx context.Context) (exitCode int, err error)
	// Signal signals the process. Having exited is no error.
	Signal(ctx context.Context, sig syscall.Signal) error
	// Terminal is the master of its terminal, to be closed by the caller; nil without Process.Terminal. Resizing it is TIOCSWINSZ.
	Terminal() *os.File
	// Close stops following the process, which goes on.
	Close() error
}

// AttachRequest says what to attach to.
type AttachRequest struct {
	// Stdin asks for the container's stdin.
	Stdin bool
	// Stdout and Stderr get what the container writes from now on, nil if not wanted. Best they are the write ends of pipes: they
	// are made non-blocking, they are still the caller's, who closes its own after Attach, and a reader that
	// doesn't keep up holds up the container in its writes.
	Stdout, Stderr *os.File
}

// Attachment is a connection to a running container.
type Attachment interface {
	// Input is the container's stdin, to be closed by the caller, or the master of its terminal, which must not be read; nil
	// if not asked for, or if the container has none (any more). With a terminal it is there even if not asked for, to resize it.
	Input() *os.File
	// Wait returns nil when the container has exited, or ended its output, and all of that has been passed on.
	// Errors: ErrParentLost, ctx's.
	Wait(ctx context.Context) error
	// Close detaches.
	Close() error
}
