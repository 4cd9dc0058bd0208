// Package plan decides what to do next for a pod that is to run: given its spec
// and what the runtime has of it, which sandbox, which containers to start and
// which to kill.
//
// It is pure: no clock, no client, no log. What it leaves out on purpose is
// when: back-off and image pulls are the caller's, who starts what the plan
// names as soon as it may. Pods that are ending (deleted, past their deadline,
// finished) are not planned for.
package plan

import (
	"fmt"

	v1 "k8s.io/api/core/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"

	"errand.dev/errand/internal/node/runtimepod"
)

// Input is what a plan is made from.
type Input struct {
	Pod     *v1.Pod
	Runtime *runtimepod.Pod
	// Unhealthy tells which probe a running container has failed, by container
	// ID: "liveness" or "startup".
	Unhealthy map[string]string
	// Started tells whether the running container has passed its startup probe;
	// nil stands for containers without one.
	Started func(containerID string) bool
	// PostStarting are the running containers, by ID, whose postStart hook isn't
	// over yet, and PostStartFailed those whose hook failed.
	PostStarting, PostStartFailed map[string]bool
	// Resized are the running containers, by ID, that must be replaced to get their
	// new resources.
	Resized map[string]bool
}

// Actions is a plan. Its parts are carried out in the order of the fields, and
// a new plan is made after each part that changed something.
type Actions struct {
	// Finished tells that nothing is left to run: what still runs (sidecars) is
	// to be stopped and the pod to be ended for good.
	Finished bool
	// Kill are running containers that must go before anything else is done.
	Kill []Kill
	// Discard are containers that were created and never started.
	Discard []*runtimepod.Container
	// NewSandbox asks for a sandbox with number Attempt. Replaces is the ID of the
	// one that can't be used any more, "" if it is the pod's first.
	NewSandbox bool
	Attempt    uint32
	Replaces   string
	// Ephemeral are indices into the spec's ephemeralContainers.
	Ephemeral []int
	// Init and Start are indices into the spec's initContainers and containers.
	// Init containers are to be started in this order, and no regular container
	// in the same pass as a regular init container.
	Init  []int
	Start []int
}

// Kill is a container to stop, and why.
type Kill struct {
	Container *runtimepod.Container
	Message   string // for the Killing event; "" is the usual one
	Probe     string // the probe that failed, if that's why
	Now       bool   // without a grace period
}

// How events name the two kinds of containers.
const (
	regular = "Container"
	initial = "Init container"
)

// Idle tells that there is nothing to do until something happens.
func (a Actions) Idle() bool {
	return !a.Finished && !a.NewSandbox && len(a.Kill)+len(a.Discard)+len(a.Ephemeral)+len(a.Init)+len(a.Start) == 0
}

// Compute makes the plan.
func Compute(in Input) Actions {
	var a Actions
	for _, c := range in.Runtime.Containers {
		if c.State == runtimepod.Created {
			a.Discard = append(a.Discard, c)
		}
	}
	if a.endEarlierRounds(&in) {
		return a
	}
	if reason := SandboxUnusable(in.Runtime); reason != "" {
		return a.withoutSandbox(in)
	}
	if initialized := a.initContainers(in); initialized && !a.Finished {
		a.containers(in)
	}
	a.awaitPostStart(in)
	if !a.Finished {
		a.ephemeral(in)
	}
	return a
}

// ephemeral plans for containers that somebody adds to look into the pod: each
// runs once, however far the pod has got.
func (a *Actions) ephemeral(in Input) {
	for i := range in.Pod.Spec.EphemeralContainers {
		if in.Runtime.Latest(in.Pod.Spec.EphemeralContainers[i].Name) == nil {
			a.Ephemeral = append(a.Ephemeral, i)
		}
	}
}

// awaitPostStart lets nothing be started while a postStart hook is under way: the
// containers that come later may count on what it does.
func (a *Actions) awaitPostStart(in Input) {
	if len(in.PostStarting) > 0 {
		a.Init, a.Start = nil, nil
	}
}

// SandboxUnusable tells why the pod needs a (new) sandbox, "" if it has a good
// one. The words are those of the PodReadyToStartContainers condition.
func SandboxUnusable(rt *runtimepod.Pod) string {
	s := rt.Sandbox()
	if s == nil {
		return "no pod sandbox exists"
	}
	ready := 0
	for i := range rt.Sandboxes {
		if rt.Sandboxes[i].Ready {
			ready++
		}
	}
	switch {
	case ready > 1:
		return "multiple pod sandboxes are ready and need to be reconciled"
	case !s.Ready:
		return "pod sandbox is not ready"
	}
	return ""
}

// withoutSandbox plans for a pod whose sandbox is missing or lost, with it all
// that ran in it.
func (a Actions) withoutSandbox(in Input) Actions {
	old := in.Runtime.Sandbox()
	ran := false
	for _, c := range in.Runtime.Containers {
		ran = ran || c.State != runtimepod.Created
	}
	if ran && !anyToRestart(in) {
		a.Finished = true
		return a
	}
	if alive := in.Runtime.Alive(); len(alive) > 0 {
		for _, c := range alive {
			a.Kill = append(a.Kill, Kill{Container: c})
		}
		return a
	}
	a.NewSandbox = true
	if old != nil {
		a.Attempt, a.Replaces = old.Attempt+1, old.ID
	}
	return a
}

// anyToRestart tells whether a pod that lost its sandbox has a container left
// that runs again by the restart policy, or that never got its turn although
// the policy allows to begin again.
func anyToRestart(in Input) bool {
	spec := &in.Pod.Spec
	for i := range spec.Containers {
		c := &spec.Containers[i]
		run := in.Runtime.Latest(c.Name)
		switch {
		case run == nil:
			if podutil.IsContainerRestartable(*spec, *c) {
				return true
			}
		case ShouldRestart(in.Pod, c, run):
			return true
		}
	}
	return false
}

// ShouldRestart tells whether the policies of container and pod want another
// run after this one. A run whose end is unknown counts as a failure.
func ShouldRestart(pod *v1.Pod, c *v1.Container, run *runtimepod.Container) bool {
	code := run.ExitCode
	if run.State != runtimepod.Exited {
		code = runtimepod.ExitCodeLost
	}
	return podutil.ContainerShouldRestart(*c, pod.Spec, code)
}

// containers plans for the regular containers of an initialized pod.
func (a *Actions) containers(in Input) {
	keep := 0
	for i := range in.Pod.Spec.Containers {
		c := &in.Pod.Spec.Containers[i]
		run := in.Runtime.Latest(c.Name)
		switch {
		case run == nil:
			a.Start = append(a.Start, i)
		case run.State == runtimepod.Running:
			keep++
			if kill, must := mustKill(in, regular, c, run); must {
				a.Kill = append(a.Kill, kill)
			}
		case run.State == runtimepod.Unknown:
			// It may still run: a second one beside it would be worse than waiting.
			keep++
			a.Kill = append(a.Kill, killUnknown(regular, run))
		case ShouldRestart(in.Pod, c, run):
			a.Start = append(a.Start, i)
		}
	}
	if keep == 0 && len(a.Start) == 0 {
		// Sidecars don't keep a pod alive, and need no restart any more.
		*a = Actions{Finished: true, Discard: a.Discard}
	}
}

// mustKill tells whether a running container has to go, to be started again or
// not. kind begins the message: "Container" or "Init container".
//
// A container whose image was changed goes only if it may run again: the one run
// of a container that is never restarted isn't thrown away.
func mustKill(in Input, kind string, c *v1.Container, run *runtimepod.Container) (Kill, bool) {
	changed := run.Definition != "" && run.Definition != runtimepod.Definition(c)
	again := restartsAfterKill(in.Pod, c)
	kill := Kill{Container: run, Probe: in.Unhealthy[run.ID]}
	switch {
	case in.PostStartFailed[run.ID]:
		kill.Message = "FailedPostStartHook"
		return kill, true
	case changed && again:
		kill.Message = fmt.Sprintf("%s %s definition changed", kind, c.Name)
	case in.Resized[run.ID]:
		kill.Message = fmt.Sprintf("%s %s resize requires restart", kind, c.Name)
		return kill, true
	case kill.Probe != "":
		kill.Message = fmt.Sprintf("%s %s failed %s probe", kind, c.Name, kill.Probe)
	default:
		return Kill{}, false
	}
	if again && kind == regular {
		kill.Message += ", will be restarted"
	}
	return kill, true
}

// restartsAfterKill looks at policies only: rules on exit codes can't be judged
// before there is one.
func restartsAfterKill(pod *v1.Pod, c *v1.Container) bool {
	if c.RestartPolicy != nil {
		return *c.RestartPolicy != v1.ContainerRestartPolicyNever
	}
	return pod.Spec.RestartPolicy != v1.RestartPolicyNever
}

func killUnknown(kind string, run *runtimepod.Container) Kill {
	return Kill{Container: run, Message: kind + " is in \"unknown\" state, try killing it before restart"}
}
