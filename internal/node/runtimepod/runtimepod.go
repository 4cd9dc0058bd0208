// Package runtimepod is what the container runtime knows of one pod: its
// sandboxes and containers as values, read from CRI messages.
//
// It owns the labels and annotations by which a pod is found again after a
// restart; there is no other record of what runs. It calls no runtime and does
// no I/O: the node's observer fills it, planning and status generation read it.
package runtimepod

import (
	"cmp"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// State is where a container stands in its life.
type State int

const (
	// Unknown: the runtime has lost track of it; it may still run.
	Unknown State = iota
	// Created but never started: what a crash between the two calls leaves.
	Created
	Running
	Exited
)

// ReasonStatusUnknown is the reason of a termination that nobody saw.
const ReasonStatusUnknown = "ContainerStatusUnknown"

// ExitCodeLost stands in for the exit code of a container whose end nobody saw.
const ExitCodeLost = 137

const messageLost = "The container could not be located when the pod was terminated"

// Container is one run of one of a pod's containers.
type Container struct {
	ID        string
	Name      string // as in the pod's spec
	SandboxID string
	State     State
	// RestartCount is how many runs of the container came before this one.
	RestartCount int32
	// Round is how often all containers of the pod had been restarted together
	// before (KEP-5532).
	Round int32
	// Definition is the fingerprint of the spec it was made from, "" if unknown.
	Definition string
	Image      string // the name that the user gave
	ImageRef   string // the exact image, as for status.containerStatuses[].imageID
	LogPath    string // absolute path of its log file

	CreatedAt  time.Time
	StartedAt  time.Time // zero if it never started
	FinishedAt time.Time // zero unless Exited
	ExitCode   int32     // valid if Exited
	Reason     string    // why it ended, e.g. Completed, Error, OOMKilled, StartError
	Message    string    // the runtime's words and then the container's termination message

	User *v1.ContainerUser
	// Limits are what the runtime holds it to.
	Limits Limits
	// Lost tells that the runtime has no record of it; what stands here comes
	// from the API.
	Lost bool
}

// Limits are those of a run's resources that an in-place resize changes (KEP-1287),
// in the CRI's units: CPU shares, µs per period, bytes.
type Limits struct{ CPUShares, CPUQuota, Memory int64 }

// Failed tells whether the run is over and did not succeed.
func (c *Container) Failed() bool {
	return c.State == Exited && (c.ExitCode != 0 || c.Reason == "OOMKilled")
}

// Sandbox is one pod sandbox.
type Sandbox struct {
	ID        string
	Attempt   uint32
	Ready     bool
	CreatedAt time.Time
	// IPs are the pod's addresses, the primary first. Empty for host network.
	IPs []string
}

// Pod is everything the runtime has of one pod.
type Pod struct {
	UID       types.UID
	Namespace string
	Name      string
	Job       Job
	// Sandboxes, the newest attempt first.
	Sandboxes []Sandbox
	// Containers, of each name the newest run first.
	Containers []*Container
}

// Sort orders sandboxes and containers newest first, as the methods expect. They
// are numbered; the clock, which may have been set back, decides only between
// equals.
func (p *Pod) Sort() {
	slices.SortStableFunc(p.Sandboxes, func(a, b Sandbox) int {
		return cmp.Or(cmp.Compare(b.Attempt, a.Attempt), b.CreatedAt.Compare(a.CreatedAt))
	})
	slices.SortStableFunc(p.Containers, func(a, b *Container) int {
		return cmp.Or(cmp.Compare(b.RestartCount, a.RestartCount), b.CreatedAt.Compare(a.CreatedAt))
	})
}

// Sandbox returns the newest sandbox, nil if there is none.
func (p *Pod) Sandbox() *Sandbox {
	if len(p.Sandboxes) == 0 {
		return nil
	}
	return &p.Sandboxes[0]
}

// IPs returns the addresses of the newest sandbox if it is ready.
func (p *Pod) IPs() []string {
	if s := p.Sandbox(); s != nil && s.Ready {
		return s.IPs
	}
	return nil
}

// Runs returns the runs of the named container, the newest first, leaving out
// those that were created and never started.
func (p *Pod) Runs(name string) []*Container {
	var runs []*Container
	for _, c := range p.Containers {
		if c.Name == name && c.State != Created {
			runs = append(runs, c)
		}
	}
	return runs
}

// Latest returns the newest run of the named container, nil if it never ran.
func (p *Pod) Latest(name string) *Container {
	for _, c := range p.Containers {
		if c.Name == name && c.State != Created {
			return c
		}
	}
	return nil
}

// Round returns the newest round of which a container has run.
func (p *Pod) Round() int32 {
	var round int32
	for _, c := range p.Containers {
		if c.State != Created {
			round = max(round, c.Round)
		}
	}
	return round
}

// Alive returns the containers that run or may do so.
func (p *Pod) Alive() []*Container {
	var alive []*Container
	for _, c := range p.Containers {
		if c.State == Running || c.State == Unknown {
			alive = append(alive, c)
		}
	}
	return alive
}

// Without returns the pod without its running containers that hidden is true of.
func (p *Pod) Without(hidden func(*Container) bool) *Pod {
	hide := func(c *Container) bool { return c.State == Running && hidden(c) }
	if !slices.ContainsFunc(p.Containers, hide) {
		return p
	}
	shown := *p
	shown.Containers = slices.DeleteFunc(slices.Clone(p.Containers), hide)
	return &shown
}

// AddLost adds a run for each container that the API says has run and of which
// the runtime has no trace: one that was seen to end ended as seen; of one that
// was running the end is unknown and counts as a failure. Without it such a
// container would look as if it had never run, and be run a second time.
func (p *Pod) AddLost(statuses ...v1.ContainerStatus) {
	added := false
	for i := range statuses {
		s := &statuses[i]
		if p.hasTrace(s) {
			continue
		}
		if c := lost(s); c != nil {
			c.Round = p.Round()
			p.Containers = append(p.Containers, c)
			added = true
		}
	}
	if added {
		p.Sort()
	}
}

// hasTrace tells whether the runtime has the run that the status shows, or, if
// the container waits, any.
func (p *Pod) hasTrace(s *v1.ContainerStatus) bool {
	runs := p.Runs(s.Name)
	if s.State.Waiting != nil || s.ContainerID == "" {
		return len(runs) > 0
	}
	return slices.ContainsFunc(runs, func(c *Container) bool { return c.ID == bareID(s.ContainerID) })
}

func lost(s *v1.ContainerStatus) *Container {
	c := &Container{
		ID:           bareID(s.ContainerID),
		Name:         s.Name,
		State:        Exited,
		RestartCount: s.RestartCount,
		Image:        s.Image,
		ImageRef:     s.ImageID,
		User:         s.User,
		Lost:         true,
	}
	end := s.State.Terminated
	switch {
	case end == nil && s.State.Waiting != nil:
		end = s.LastTerminationState.Terminated
		if end == nil || end.ContainerID == "" {
			return nil // never ran, or nobody can tell
		}
		c.ID = bareID(end.ContainerID)
	case end != nil && end.ContainerID == "" && s.ContainerID == "":
		return nil
	}
	if end != nil {
		c.ExitCode, c.Reason, c.Message = end.ExitCode, end.Reason, end.Message
		c.StartedAt, c.FinishedAt, c.CreatedAt = end.StartedAt.Time, end.FinishedAt.Time, end.StartedAt.Time
		return c
	}
	if s.State.Running == nil {
		return nil
	}
	c.ExitCode, c.Reason, c.Message = ExitCodeLost, ReasonStatusUnknown, messageLost
	c.StartedAt, c.CreatedAt = s.State.Running.StartedAt.Time, s.State.Running.StartedAt.Time
	return c
}
