package plan

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"

	"errand.dev/errand/internal/node/runtimepod"
)

// whole gives the pod's container of that name a rule that restarts all containers
// when it ends with code 42.
func whole(p *v1.Pod, name string) *v1.Pod {
	for _, list := range [][]v1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range list {
			if c := &list[i]; c.Name == name {
				if c.RestartPolicy == nil {
					c.RestartPolicy = new(v1.ContainerRestartPolicyNever)
				}
				c.RestartPolicyRules = []v1.ContainerRestartRule{
					{Action: v1.ContainerRestartRuleActionRestart, ExitCodes: &v1.ContainerRestartRuleOnExitCodes{Operator: v1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{3}}},
					{Action: v1.ContainerRestartRuleActionRestartAllContainers, ExitCodes: &v1.ContainerRestartRuleOnExitCodes{Operator: v1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{3, 42}}},
				}
			}
		}
	}
	return p
}

func inRound(n int32, c *runtimepod.Container) *runtimepod.Container {
	c.Round = n
	return c
}

// When a container ends as such a rule has it, all others are killed, without grace, and all run once more, the init
// containers at first. What ran before doesn't count, whatever the policies say.
func TestRestartAllContainers(t *testing.T) {
	const (
		never   = v1.RestartPolicyNever
		running = runtimepod.Running
		exited  = runtimepod.Exited
	)
	for name, c := range map[string]struct {
		pod   *v1.Pod
		rt    *runtimepod.Pod
		round int32
		want  brief
	}{
		"another code": {
			whole(pod(never, nil, "a", "b"), "a"), ready(run("a", exited, 1), run("b", running, 0)), 0, brief{},
		},
		"a rule before it": {
			whole(pod(never, nil, "a", "b"), "a"), ready(run("a", exited, 3), run("b", running, 0)), 0, brief{Start: []int{0}},
		},
		"the others are killed": {
			whole(pod(never, inits("i", "s"), "a", "b"), "a"), ready(run("a", exited, 42), run("b", running, 0), run("i", exited, 0), run("s", running, 0)),
			1, brief{Kill: []string{"b!", "s!"}},
		},
		"all begins again": {
			whole(pod(never, inits("i", "s"), "a", "b"), "a"), ready(run("a", exited, 42), run("b", exited, 137), run("i", exited, 0), run("s", exited, 0)),
			1, brief{Init: []int{0}},
		},
		"all had ended": {
			whole(pod(never, nil, "a", "b"), "a"), ready(run("a", exited, 42), run("b", exited, 0)), 1, brief{Start: []int{0, 1}},
		},
		"the second init container's turn": {
			whole(pod(never, inits("i", "s"), "a"), "a"), ready(inRound(1, run("i", exited, 0)), run("a", exited, 42), run("i", exited, 0), run("s", exited, 0)),
			1, brief{Init: []int{1}},
		},
		"the trigger is forgotten": {
			whole(pod(never, inits("s"), "a"), "s"), ready(inRound(1, run("s", running, 0)), run("a", exited, 137)), 1, brief{Start: []int{0}},
		},
		"one that was started meanwhile": {
			whole(pod(never, nil, "a", "b"), "a"), ready(inRound(1, run("a", running, 0)), run("a", exited, 42), run("b", running, 0)), 1, brief{Kill: []string{"b!"}},
		},
		"an init container": {
			whole(pod(never, inits("i", "j"), "a"), "j"), ready(run("i", exited, 0), run("j", exited, 42)), 1, brief{Init: []int{0}},
		},
		"a sidecar": {
			whole(pod(never, inits("s"), "a"), "s"), ready(run("s", exited, 42), run("a", running, 0)), 1, brief{Kill: []string{"a!"}},
		},
		"a second time": {
			whole(pod(never, nil, "a", "b"), "a"),
			ready(inRound(1, run("a", exited, 42)), run("a", exited, 42), inRound(1, run("b", running, 0))), 2, brief{Kill: []string{"b!"}},
		},
		"and then it ends": {
			whole(pod(never, nil, "a", "b"), "a"),
			ready(inRound(1, run("a", exited, 1)), run("a", exited, 42), inRound(1, run("b", exited, 0)), run("b", exited, 137)), 1, brief{Finished: true},
		},
		"the sandbox is lost": {
			whole(pod(never, nil, "a", "b"), "a"), notReady(run("a", exited, 42), run("b", exited, 137)), 1, brief{NewSandbox: true, Attempt: 2},
		},
		"who looks into the pod isn't troubled": {
			debugged(whole(pod(never, nil, "a"), "a"), "debug"), ready(run("a", exited, 42), run("debug", running, 0)), 1, brief{Start: []int{0}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := Compute(Input{Pod: c.pod, Runtime: c.rt})
			if diff := cmp.Diff(c.want, briefly(a)); diff != "" {
				t.Error(diff)
			}
			if round := Round(c.pod, c.rt); round != c.round {
				t.Errorf("it is round %d, not %d", round, c.round)
			}
		})
	}
}
