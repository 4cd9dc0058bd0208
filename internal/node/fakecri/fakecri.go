// Package fakecri is a container runtime in memory, for tests of what stands
// above the CRI: sandboxes and containers have their states, start counts,
// events and errors as a real runtime's do, but nothing runs.
//
// What a "process" does is up to the test: Behave says what happens when a
// container starts, Exit ends one. The runtime outlives its users: each agent
// talks through a Client of its own, which can be made to die at any call, as an
// agent does that is killed. Nothing happens by itself but what the injected
// clock brings about.
package fakecri

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/clock"
)

// Name is the runtime's name, with which container IDs begin.
const Name = "fake"

// Behaviour is what a container does once started.
type Behaviour struct {
	// StartError makes StartContainer fail, as for a command that doesn't exist.
	StartError string
	// Vanishes has a container that couldn't be started removed at once, as CRI-O does.
	Vanishes bool
	// Exits makes the container end with ExitCode as soon as it has started.
	Exits    bool
	ExitCode int32
	Reason   string // default: Completed or Error
	// IgnoresTerm makes it outlive SIGTERM until the grace period is over.
	IgnoresTerm bool
}

// Exec is a command run in a container.
type Exec struct {
	UID, Container string
	Attempt        uint32
	Command        []string
}

// Runtime is the runtime. Its exported fields are to be set before first use.
type Runtime struct {
	Clock clock.WithTicker
	// Behave tells what a container does; nil lets all of them run until they are
	// told to exit.
	Behave func(*runtimeapi.ContainerConfig) Behaviour
	// Exec tells how a command ends that is run in a container; nil lets all succeed
	// at once. ctx ends with the caller's, the command's timeout or the container.
	Exec func(ctx context.Context, e Exec) error

	mu          sync.Mutex
	serial      int
	sandboxes   map[string]*sandbox
	containers  map[string]*container
	images      map[string]*runtimeapi.Image
	pullErrors  map[string]error
	pulling     map[string]chan struct{}
	subscribers map[*subscriber]struct{}
	starts      map[string]int
	usage       map[string]uint64
	fail        map[string]error
}

type sandbox struct {
	status *runtimeapi.PodSandboxStatus
	config *runtimeapi.PodSandboxConfig
}

type container struct {
	status  *runtimeapi.ContainerStatus
	config  *runtimeapi.ContainerConfig
	sandbox string
	does    Behaviour
	ended   chan struct{}
}

// New returns a runtime without images.
func New(clk clock.WithTicker) *Runtime {
	return &Runtime{
		Clock:       clk,
		sandboxes:   map[string]*sandbox{},
		containers:  map[string]*container{},
		images:      map[string]*runtimeapi.Image{},
		pullErrors:  map[string]error{},
		pulling:     map[string]chan struct{}{},
		subscribers: map[*subscriber]struct{}{},
		starts:      map[string]int{},
		usage:       map[string]uint64{},
		fail:        map[string]error{},
	}
}

func key(uid, name string) string { return uid + "/" + name }

// Starts returns how often the pod's container was started, over all time.
func (r *Runtime) Starts(uid, name string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.starts[key(uid, name)]
}

// Fail makes all calls of a method fail, e.g. "RunPodSandbox"; nil mends it.
func (r *Runtime) Fail(method string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail[method] = err
}

// Exit ends the running run of the pod's container.
func (r *Runtime) Exit(uid, name string, code int32) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, c := range r.containers {
		if c.config.Metadata.Name == name && r.uidOf(c) == uid && c.status.State == runtimeapi.ContainerState_CONTAINER_RUNNING {
			r.end(id, code, "")
			return nil
		}
	}
	return fmt.Errorf("no running container %q of pod %s", name, uid)
}

// Running lists "name/attempt" of the pod's running containers, sorted.
func (r *Runtime) Running(uid string) []string {
	return r.inState(uid, runtimeapi.ContainerState_CONTAINER_RUNNING)
}

// Dead lists "name/attempt" of the pod's ended containers, sorted.
func (r *Runtime) Dead(uid string) []string {
	return r.inState(uid, runtimeapi.ContainerState_CONTAINER_EXITED)
}

func (r *Runtime) inState(uid string, state runtimeapi.ContainerState) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var names []string
	for _, c := range r.containers {
		if r.uidOf(c) == uid && c.status.State == state {
			names = append(names, fmt.Sprintf("%s/%d", c.config.Metadata.Name, c.config.Metadata.Attempt))
		}
	}
	slices.Sort(names)
	return names
}

// Sandboxes returns how many sandboxes there are, and how many are ready.
func (r *Runtime) Sandboxes() (all, ready int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.sandboxes {
		if s.status.State == runtimeapi.PodSandboxState_SANDBOX_READY {
			ready++
		}
	}
	return len(r.sandboxes), ready
}

// Config returns the configuration of the newest run of the pod's container,
// nil if there is none.
func (r *Runtime) Config(uid, name string) *runtimeapi.ContainerConfig {
	r.mu.Lock()
	defer r.mu.Unlock()
	var newest *container
	for _, c := range r.containers {
		if r.uidOf(c) == uid && c.config.Metadata.Name == name &&
			(newest == nil || c.config.Metadata.Attempt > newest.config.Metadata.Attempt) {
			newest = c
		}
	}
	if newest == nil {
		return nil
	}
	return newest.config
}

// SandboxConfig returns the configuration of a sandbox of the pod, nil if it
// has none.
func (r *Runtime) SandboxConfig(uid string) *runtimeapi.PodSandboxConfig {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.sandboxes {
		if s.config.Metadata.Uid == uid {
			return s.config
		}
	}
	return nil
}

// Reboot ends everything as a restart of the machine does: containers are found
// dead without anyone having seen why, sandboxes are not ready.
func (r *Runtime) Reboot() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, c := range r.containers {
		if c.status.State == runtimeapi.ContainerState_CONTAINER_RUNNING {
			r.end(id, 137, "ContainerStatusUnknown")
		}
	}
	for _, s := range r.sandboxes {
		s.status.State = runtimeapi.PodSandboxState_SANDBOX_NOTREADY
	}
}

// Lose forgets everything, as if the runtime's data were deleted.
func (r *Runtime) Lose() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.sandboxes)
	clear(r.containers)
}

func (r *Runtime) uidOf(c *container) string {
	if s := r.sandboxes[c.sandbox]; s != nil {
		return s.config.Metadata.Uid
	}
	return ""
}

// end makes a container exit. r.mu must be held.
func (r *Runtime) end(id string, code int32, reason string) {
	c := r.containers[id]
	c.status.State = runtimeapi.ContainerState_CONTAINER_EXITED
	c.status.ExitCode = code
	c.status.FinishedAt = r.Clock.Now().UnixNano()
	switch {
	case reason != "":
		c.status.Reason = reason
	case code == 0:
		c.status.Reason = "Completed"
	default:
		c.status.Reason = "Error"
	}
	close(c.ended)
	r.tell(id, runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT)
}

func (r *Runtime) nextID(prefix string) string {
	r.serial++
	return fmt.Sprintf("%s%04d", prefix, r.serial)
}

func notFound(what, id string) error {
	return status.Errorf(codes.NotFound, "%s %q not found", what, id)
}

func matches(labels, selector map[string]string) bool {
	for k, v := range selector {
		if labels[k] != v {
			return false
		}
	}
	return true
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
