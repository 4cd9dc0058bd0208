package plan

import (
	v1 "k8s.io/api/core/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"

	"errand.dev/errand/internal/node/runtimepod"
)

// initContainers plans for the init containers and tells whether the regular
// ones may run.
//
// Init containers run one after the other, so how far a pod has got is told by
// the last one that ran in the present sandbox, its frontier: those before it are
// done, or are sidecars (restartPolicy Always, KEP-753) to be kept running.
func (a *Actions) initContainers(in Input) (initialized bool) {
	specs := in.Pod.Spec.InitContainers
	frontier := -1
	for i := range specs {
		if runInSandbox(in.Runtime, specs[i].Name) != nil {
			frontier = i
		}
	}
	initialized = len(specs) == 0 || Initialized(in.Pod, in.Runtime)
	if initialized {
		frontier = len(specs) // beyond all: only sidecars are looked at
	}
	for i := 0; i < frontier && i < len(specs); i++ {
		if podutil.IsRestartableInitContainer(&specs[i]) {
			a.sidecar(in, i)
		}
	}
	if initialized {
		return true
	}
	next := frontier + 1
	if frontier >= 0 && !a.frontier(in, frontier) {
		return false
	}
	if next < len(specs) {
		a.Init = append(a.Init, next)
		return false
	}
	return true
}

// frontier plans for the last init container that ran and tells whether it lets
// the next one run.
func (a *Actions) frontier(in Input, i int) (done bool) {
	c := &in.Pod.Spec.InitContainers[i]
	run := runInSandbox(in.Runtime, c.Name)
	if podutil.IsRestartableInitContainer(c) {
		return a.sidecar(in, i)
	}
	switch {
	case run.State == runtimepod.Running:
		return false
	case run.State == runtimepod.Unknown:
		a.Kill = append(a.Kill, killUnknown(initial, run))
		return false
	case !run.Failed():
		return true
	case ShouldRestart(in.Pod, c, failedRun(run)):
		a.Init = append(a.Init, i)
		return false
	}
	*a = Actions{Finished: true, Discard: a.Discard}
	return false
}

// failedRun makes an out-of-memory kill a failure whatever the exit code.
func failedRun(run *runtimepod.Container) *runtimepod.Container {
	if run.ExitCode != 0 {
		return run
	}
	failed := *run
	failed.ExitCode = runtimepod.ExitCodeLost
	return &failed
}

// sidecar keeps a sidecar running and tells whether it has started.
func (a *Actions) sidecar(in Input, i int) (started bool) {
	c := &in.Pod.Spec.InitContainers[i]
	run := runInSandbox(in.Runtime, c.Name)
	switch {
	case run == nil, run.State == runtimepod.Exited:
		a.Init = append(a.Init, i)
		return false
	case run.State == runtimepod.Unknown:
		a.Kill = append(a.Kill, killUnknown(initial, run))
		return false
	}
	if kill, must := mustKill(in, initial, c, run); must {
		a.Kill = append(a.Kill, kill)
		return false
	}
	return c.StartupProbe == nil || in.Started == nil || in.Started(run.ID)
}

// Initialized tells whether a regular container has run in the present sandbox:
// from then on the pod counts as initialized, whatever becomes of its sidecars.
func Initialized(pod *v1.Pod, rt *runtimepod.Pod) bool {
	for i := range pod.Spec.Containers {
		if runInSandbox(rt, pod.Spec.Containers[i].Name) != nil {
			return true
		}
	}
	return false
}

// runInSandbox returns the named container's latest run if it belongs to the
// present sandbox: after a new one is made, initialization begins again.
func runInSandbox(rt *runtimepod.Pod, name string) *runtimepod.Container {
	run, s := rt.Latest(name), rt.Sandbox()
	if run == nil || s == nil || run.SandboxID != s.ID {
		return nil
	}
	return run
}
