package shimapi

import (
	"encoding/json"
	"time"
)

// The versions of the protocol that this build speaks (see Versions in the package comment).
const (
	MinVersion = 1
	MaxVersion = 1
)

// SocketName is the name of the socket in the shim's directory.
const SocketName = "shim.sock"

// Hello opens a connection in both directions.
type Hello struct {
	Min int `json:"min"`
	Max int `json:"max"`

	// The rest is set by the shim only.

	// Version is the highest one that both speak, 0 if there is none.
	Version int `json:"version,omitempty"`
	// Instance names this life of the shim: another value means that the shim was restarted, and Seq with it.
	Instance string `json:"instance,omitempty"`
	// Pid of the shim, in its own PID namespace.
	Pid int `json:"pid,omitempty"`
	// Build is the version of the errand-shim binary, for people.
	Build string `json:"build,omitempty"`
}

// Negotiate returns the highest version that both sides speak, 0 if none.
func Negotiate(a, b Hello) int {
	if v := min(a.Max, b.Max); v >= max(a.Min, b.Min) {
		return v
	}
	return 0
}

// Op names a call.
type Op string

// The calls. Each constant says: request body → response body (descriptors in brackets).
const (
	OpPing   Op = "ping"   // none → none
	OpRun    Op = "run"    // Run → Started
	OpSignal Op = "signal" // Signal → none
	OpDelete Op = "delete" // ContainerRef → none, once everything of the container is gone
	OpUpdate Op = "update" // Update → Updated
	OpReopen Op = "reopen" // ContainerRef → none: the log file has been opened anew
	OpList   Op = "list"   // none → Containers
	OpEvents Op = "events" // Events → Container (exited), as often as there are exits
	OpExec   Op = "exec"   // Exec [stdin, stdout, stderr] → Started [pty master, if Terminal], then Exit
	OpAttach Op = "attach" // Attach [stdout, stderr] → none [stdin or pty master], then none once the output has ended
	OpDrain  Op = "drain"  // Drain → none; the shim is gone once the connection has been closed by it
)

// Request follows the client's Hello.
type Request struct {
	Op   Op              `json:"op"`
	Body json.RawMessage `json:"body,omitempty"`
}

// Response answers a Request. Error is nil on success.
type Response struct {
	Error *Error          `json:"error,omitempty"`
	Body  json.RawMessage `json:"body,omitempty"`
}

// Handler is the OCI runtime that runs a container. It comes with each Run rather than with the shim's start, so that
// errand's configuration may change while the shim lives; the shim keeps it with the container.
type Handler struct {
	Name string `json:"name"`
	// Path of the binary, absolute.
	Path string `json:"path"`
	// Root is the runtime's own state directory (its --root), absolute.
	Root string `json:"root"`
	// OwnDelete: the runtime keeps no more than <root>/<id> and the cgroups, so that the shim may clean up itself
	// rather than execute the runtime's delete (true of runc and crun; saves 100 ms a container).
	OwnDelete bool `json:"ownDelete,omitempty"`
}

// Run starts the container whose OCI bundle is at Bundle.
type Run struct {
	ID      string  `json:"id"`
	Bundle  string  `json:"bundle"`
	Handler Handler `json:"handler"`
	// CgroupsPath is linux.cgroupsPath of the bundle's config: absolute, as it is how the shim finds what's left of a
	// container after a crash.
	CgroupsPath string `json:"cgroupsPath"`
	// Poststop: the bundle has poststop hooks, which only the runtime's own delete runs.
	Poststop bool `json:"poststop,omitempty"`

	LogPath    string `json:"logPath,omitempty"` // "" = output is discarded
	LogMaxLine int    `json:"logMaxLine,omitempty"`
	// LogMaxSize in bytes is when the log goes on in a new file, of which LogMaxFiles are kept; 0 = it grows without bound.
	LogMaxSize  int64 `json:"logMaxSize,omitempty"`
	LogMaxFiles int   `json:"logMaxFiles,omitempty"`

	Stdin     bool `json:"stdin,omitempty"`
	StdinOnce bool `json:"stdinOnce,omitempty"`
	Terminal  bool `json:"terminal,omitempty"`

	// Launch, unless nil, is the same container for the shim to make by itself. Its cgroup exists, with its limits.
	Launch *Launch `json:"launch,omitempty"`
}

// Started says which process a Run or Exec became.
type Started struct {
	Pid int       `json:"pid"`
	At  time.Time `json:"at"`
	// LaunchNanos is how long the launcher, or the OCI runtime, took of that of a Run; 0 from a shim that doesn't tell.
	LaunchNanos int64 `json:"launchNanos,omitempty"`
}

// ContainerRef names a container.
type ContainerRef struct {
	ID string `json:"id"`
}

// Signal signals a container's first process, with All every one in its cgroup, with Exec (the number from its Started.Pid)
// the process of an Exec. It's no error if the process has exited.
type Signal struct {
	ID     string `json:"id"`
	Signal int    `json:"signal"`
	All    bool   `json:"all,omitempty"`
	Exec   int    `json:"exec,omitempty"`
}

// Update changes a running container's limits.
type Update struct {
	ID        string          `json:"id"`
	Resources json.RawMessage `json:"resources"` // OCI linux.resources
}

// Updated answers an Update. Where no OCI runtime knows the container, it says in which cgroup the client is to set the limits.
type Updated struct {
	CgroupsPath string `json:"cgroupsPath,omitempty"`
}

// State of a container.
type State string

// A container is in List and has a State once its Run has succeeded, until it is deleted.
const (
	Running State = "running"
	Exited  State = "exited"
)

// Reasons for an exit that isn't the process's own.
const (
	// ReasonShimLost: the shim died under the container, which was then killed.
	ReasonShimLost = "ShimLost"
)

// Exit tells how a process ended.
type Exit struct {
	Code      int       `json:"code"` // 128+n if signal n ended it
	At        time.Time `json:"at"`
	OOMKilled bool      `json:"oomKilled,omitempty"`
	Reason    string    `json:"reason,omitempty"`
}

// Container is the status of one.
type Container struct {
	ID        string    `json:"id"`
	Pid       int       `json:"pid"`
	StartedAt time.Time `json:"startedAt"`
	State     State     `json:"state"`
	Exit      *Exit     `json:"exit,omitempty"` // if State is Exited
	Seq       uint64    `json:"seq,omitempty"`  // if State is Exited
}

// Containers is the answer to OpList.
type Containers struct {
	Containers []Container `json:"containers"`
}

// Events asks for exits with Seq > After.
type Events struct {
	After uint64 `json:"after,omitempty"`
}

// Exec runs a process in a container. Without Terminal exactly three descriptors come along: stdin, stdout, stderr. With
// Bound the process, and all of its process group, is killed when the client goes before it has ended.
type Exec struct {
	ID       string          `json:"id"`
	Process  json.RawMessage `json:"process"` // OCI process
	Terminal bool            `json:"terminal,omitempty"`
	Bound    bool            `json:"bound,omitempty"`
	// Launch is the same process for containers that the shim has made by itself; nil if it can't be put so.
	Launch *Process `json:"launch,omitempty"`
}

// Attach copies what the container writes from now on to the descriptors that come along, in the order stdout, stderr,
// those asked for only. They become non-blocking, and a reader that doesn't read holds up the container's writes (not other containers). With
// Stdin the write end of the container's stdin comes back, or the terminal's master for stdin and resizing.
type Attach struct {
	ID     string `json:"id"`
	Stdin  bool   `json:"stdin,omitempty"`
	Stdout bool   `json:"stdout,omitempty"`
	Stderr bool   `json:"stderr,omitempty"`
}

// Drain makes the shim refuse new containers and stop once none runs; with Kill it kills those that do.
type Drain struct {
	Kill bool `json:"kill,omitempty"`
}
