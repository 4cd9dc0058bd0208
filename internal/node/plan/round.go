package plan

import (
	"slices"

	v1 "k8s.io/api/core/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"

	"errand.dev/errand/internal/node/runtimepod"
)

// Round returns which round of the pod's containers it is, from 0: a new one begins
// when one of them ends as a restart rule has it whose action is RestartAllContainers
// (KEP-5532). Runs of earlier rounds don't count any more: all init and regular
// containers are to run again.
func Round(pod *v1.Pod, rt *runtimepod.Pod) int32 {
	if !podutil.AllContainersCouldRestart(&pod.Spec) {
		return 0
	}
	begun := rt.Round()
	for c := range podutil.ContainerIter(&pod.Spec, podutil.InitContainers|podutil.Containers) {
		if slices.ContainsFunc(rt.Runs(c.Name), func(run *runtimepod.Container) bool {
			return run.Round == begun && run.State == runtimepod.Exited && restartsAll(c, run.ExitCode)
		}) {
			return begun + 1
		}
	}
	return begun
}

func restartsAll(c *v1.Container, code int32) bool {
	rule, matches := podutil.FindMatchingContainerRestartRule(*c, code)
	return matches && rule.Action == v1.ContainerRestartRuleActionRestartAllContainers
}

// endEarlierRounds takes the runs of earlier rounds out of the plan's input, and has
// those killed that aren't over. It tells whether there were any.
func (a *Actions) endEarlierRounds(in *Input) bool {
	round := Round(in.Pod, in.Runtime)
	if round == 0 {
		return false
	}
	earlier := Earlier(in.Pod, round)
	for _, c := range in.Runtime.Alive() {
		if earlier(c) {
			a.Kill = append(a.Kill, Kill{Container: c, Message: "All containers of the pod will be restarted", Now: true})
		}
	}
	present := *in.Runtime
	present.Containers = slices.DeleteFunc(slices.Clone(present.Containers), earlier)
	in.Runtime = &present
	return len(a.Kill) > 0
}

// Earlier tells of a run whether it is one of a round before. Ephemeral containers have
// no part in rounds.
func Earlier(pod *v1.Pod, round int32) func(*runtimepod.Container) bool {
	return func(run *runtimepod.Container) bool {
		return run.Round < round && !slices.ContainsFunc(pod.Spec.EphemeralContainers, func(c v1.EphemeralContainer) bool { return c.Name == run.Name })
	}
}
