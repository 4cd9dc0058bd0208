package podstatus

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"errand.dev/errand/internal/node/runtimepod"
)

var (
	begin = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	now   = metav1.NewTime(begin.Add(time.Hour))
)

func pod(policy v1.RestartPolicy, inits []string, names ...string) *v1.Pod {
	p := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Generation: 4},
		Spec:       v1.PodSpec{RestartPolicy: policy},
		Status:     v1.PodStatus{Phase: v1.PodPending},
	}
	for _, name := range inits {
		c := v1.Container{Name: name, Image: "img"}
		if name[0] == 's' {
			c.RestartPolicy = ptr.To(v1.ContainerRestartPolicyAlways)
		}
		p.Spec.InitContainers = append(p.Spec.InitContainers, c)
	}
	for _, name := range names {
		p.Spec.Containers = append(p.Spec.Containers, v1.Container{Name: name, Image: "img"})
	}
	return p
}

func runs(name string) *runtimepod.Container {
	return &runtimepod.Container{ID: name + "-id", Name: name, SandboxID: "sb", State: runtimepod.Running, StartedAt: begin, Image: "img", ImageRef: "ref"}
}

func ended(name string, code int32) *runtimepod.Container {
	c := runs(name)
	c.State, c.ExitCode, c.Reason, c.FinishedAt = runtimepod.Exited, code, "Error", begin.Add(time.Minute)
	if code == 0 {
		c.Reason = "Completed"
	}
	return c
}

func in(p *v1.Pod, containers ...*runtimepod.Container) Input {
	return Input{
		Pod:      p,
		Previous: &p.Status,
		Runtime: &runtimepod.Pod{
			Sandboxes:  []runtimepod.Sandbox{{ID: "sb", Ready: true, IPs: []string{"10.0.0.2"}}},
			Containers: containers,
		},
		RuntimeName: "errand",
		HostIPs:     []string{"192.0.2.1"},
		Now:         now,
	}
}

func (i Input) ended() Input { i.Ended, i.Ending = true, true; return i }

func (i Input) was(phase v1.PodPhase) Input {
	i.Previous = &v1.PodStatus{Phase: phase, Conditions: []v1.PodCondition{{Type: v1.PodInitialized, Status: v1.ConditionTrue, LastTransitionTime: now}}}
	return i
}

// whole lets all containers of the pod restart if the regular ones end with code 2.
func whole(p *v1.Pod) *v1.Pod {
	for i := range p.Spec.Containers {
		p.Spec.Containers[i].RestartPolicy = new(v1.ContainerRestartPolicyNever)
		p.Spec.Containers[i].RestartPolicyRules = []v1.ContainerRestartRule{{
			Action:    v1.ContainerRestartRuleActionRestartAllContainers,
			ExitCodes: &v1.ContainerRestartRuleOnExitCodes{Operator: v1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{2}},
		}}
	}
	return p
}

// second makes it a run after all containers were restarted.
func second(c *runtimepod.Container) *runtimepod.Container {
	c.ID, c.RestartCount, c.Round = c.ID+"-2", 1, 1
	return c
}

func (i Input) waits(name, reason string) Input {
	i.Waiting = map[string]Waiting{name: {Reason: reason, Message: "m"}}
	return i
}

// states writes container states as "name:R", "name:T3" or "name:W(reason)",
// followed by how the run before ended.
func states(list []v1.ContainerStatus) string {
	var out []string
	for i := range list {
		s := list[i].Name + ":" + state(list[i].State)
		if last := list[i].LastTerminationState; last.Terminated != nil {
			s += "<" + state(last)
		}
		out = append(out, s)
	}
	return strings.Join(out, " ")
}

func state(s v1.ContainerState) string {
	switch {
	case s.Running != nil:
		return "R"
	case s.Terminated != nil:
		return "T" + string(rune('0'+s.Terminated.ExitCode%10))
	default:
		return "W(" + s.Waiting.Reason + ")"
	}
}

func TestPhaseAndStates(t *testing.T) {
	const (
		never, onFailure, always = v1.RestartPolicyNever, v1.RestartPolicyOnFailure, v1.RestartPolicyAlways
		pending, running         = v1.PodPending, v1.PodRunning
		succeeded, failed        = v1.PodSucceeded, v1.PodFailed
		creating, initializing   = "W(ContainerCreating)", "W(PodInitializing)"
	)
	for name, c := range map[string]struct {
		in         Input
		phase      v1.PodPhase
		init, main string
	}{
		"nothing yet":                  {in(pod(never, nil, "a")), pending, "", "a:" + creating},
		"running":                      {in(pod(never, nil, "a"), runs("a")), running, "", "a:R"},
		"one of two":                   {in(pod(never, nil, "a", "b"), runs("a")), pending, "", "a:R b:" + creating},
		"sorted by name":               {in(pod(never, nil, "b", "a"), runs("a"), runs("b")), running, "", "a:R b:R"},
		"ended well, sandbox still up": {in(pod(never, nil, "a"), ended("a", 0)), pending, "", "a:T0"},
		"ended well":                   {in(pod(never, nil, "a"), ended("a", 0)).ended(), succeeded, "", "a:T0"},
		"ended badly":                  {in(pod(never, nil, "a"), ended("a", 3)).ended(), failed, "", "a:T3"},
		"one ended badly":              {in(pod(never, nil, "a", "b"), ended("a", 0), ended("b", 1)).ended(), failed, "", "a:T0 b:T1"},
		"one ended, one runs":          {in(pod(never, nil, "a", "b"), ended("a", 1), runs("b")), running, "", "a:T1 b:R"},
		"to be restarted":              {in(pod(onFailure, nil, "a"), ended("a", 1)), running, "", "a:T1"},
		"backing off":                  {in(pod(onFailure, nil, "a"), ended("a", 1)).waits("a", "CrashLoopBackOff"), running, "", "a:W(CrashLoopBackOff)<T1"},
		"no reason to wait any more":   {in(pod(never, nil, "a"), ended("a", 1)).waits("a", "RunContainerError"), pending, "", "a:T1"},
		"restarted":                    {in(pod(always, nil, "a"), runs("a"), ended("a", 1)), running, "", "a:R<T1"},
		"image missing":                {in(pod(never, nil, "a")).waits("a", "ErrImagePull"), pending, "", "a:W(ErrImagePull)"},
		"deleted before it ran":        {in(pod(never, nil, "a")).ended(), failed, "", "a:T7"},
		"deleted while backing off":    {in(pod(onFailure, nil, "a"), ended("a", 1)).waits("a", "CrashLoopBackOff").ended(), failed, "", "a:T1"},
		"deleted, had succeeded once":  {in(pod(always, nil, "a"), ended("a", 0)).ended(), succeeded, "", "a:T0"},

		"first init":           {in(pod(never, []string{"i"}, "a"), runs("i")), pending, "i:R", "a:" + initializing},
		"init done":            {in(pod(never, []string{"i"}, "a"), ended("i", 0)), pending, "i:T0", "a:" + initializing},
		"init failed":          {in(pod(never, []string{"i", "j"}, "a"), ended("i", 1)).ended(), failed, "i:T1 j:" + initializing, "a:" + initializing},
		"init to be restarted": {in(pod(onFailure, []string{"i"}, "a"), ended("i", 1)).waits("i", "CrashLoopBackOff"), pending, "i:W(CrashLoopBackOff)<T1", "a:" + initializing},
		"initialized":          {in(pod(never, []string{"i"}, "a"), runs("a"), ended("i", 0)), running, "i:T0", "a:R"},

		"sidecar starts":            {in(pod(never, []string{"s"}, "a"), runs("s")), pending, "s:R", "a:" + initializing},
		"sidecar and all":           {in(pod(never, []string{"s"}, "a"), runs("a"), runs("s")), running, "s:R", "a:R"},
		"sidecar left":              {in(pod(never, []string{"s"}, "a"), ended("a", 0), runs("s")), running, "s:R", "a:T0"},
		"sidecar killed at the end": {in(pod(never, []string{"s"}, "a"), ended("a", 0), ended("s", 7)).ended(), succeeded, "s:T7", "a:T0"},

		"all to be restarted":       {in(whole(pod(never, []string{"i", "s"}, "a", "b")), ended("a", 2), runs("b"), ended("i", 0), runs("s")).was(running), running, "i:T0 s:R", "a:T2 b:R"},
		"all others killed":         {in(whole(pod(never, []string{"i"}, "a", "b")), ended("a", 2), ended("b", 9), ended("i", 0)).was(running).waits("i", "CrashLoopBackOff"), pending, "i:W(CrashLoopBackOff)<T0", "a:W(RestartingAllContainers)<T2 b:W(RestartingAllContainers)<T9"},
		"the first runs again":      {in(whole(pod(never, nil, "a", "b")), second(runs("b")), ended("a", 2), ended("b", 9)).was(running), running, "", "a:W(RestartingAllContainers)<T2 b:R<T9"},
		"all run again":             {in(whole(pod(never, nil, "a", "b")), second(runs("a")), second(runs("b")), ended("a", 2), ended("b", 9)).was(running), running, "", "a:R<T2 b:R<T9"},
		"deleted before they run":   {in(whole(pod(never, nil, "a", "b")), ended("a", 2), ended("b", 9)).ended(), failed, "", "a:T2 b:T9"},
		"ended in the second round": {in(whole(pod(never, nil, "a")), second(ended("a", 0)), ended("a", 2)).ended(), succeeded, "", "a:T0<T2"},
	} {
		t.Run(name, func(t *testing.T) {
			s := Generate(c.in)
			if s.Phase != c.phase {
				t.Errorf("phase %s, want %s", s.Phase, c.phase)
			}
			if got := states(s.InitContainerStatuses); got != c.init {
				t.Errorf("init containers %s, want %s", got, c.init)
			}
			if got := states(s.ContainerStatuses); got != c.main {
				t.Errorf("containers %s, want %s", got, c.main)
			}
		})
	}
}

// A container that somebody added has no part in it when all are restarted.
func TestRestartingAllLeavesEphemeralContainers(t *testing.T) {
	p := whole(pod("Never", nil, "a", "b"))
	for _, name := range []string{"done", "looking"} {
		p.Spec.EphemeralContainers = append(p.Spec.EphemeralContainers, v1.EphemeralContainer{EphemeralContainerCommon: v1.EphemeralContainerCommon{Name: name}})
	}
	s := Generate(in(p, second(runs("b")), ended("a", 2), ended("b", 9), ended("done", 1), runs("looking")).was(v1.PodRunning))
	if got, want := states(s.EphemeralContainerStatuses), "done:T1 looking:R"; got != want {
		t.Errorf("ephemeral containers %s, want %s", got, want)
	}
	if got, want := states(s.ContainerStatuses), "a:W(RestartingAllContainers)<T2 b:R<T9"; got != want {
		t.Errorf("containers %s, want %s", got, want)
	}
}

// brief is a condition as kubectl describe shows it, and why.
type brief struct{ Status, Reason, Message string }

func briefs(s *v1.PodStatus) map[v1.PodConditionType]brief {
	m := map[v1.PodConditionType]brief{}
	for _, c := range s.Conditions {
		m[c.Type] = brief{string(c.Status), c.Reason, c.Message}
	}
	return m
}

func TestConditions(t *testing.T) {
	yes := brief{Status: "True"}
	for name, c := range map[string]struct {
		in   Input
		want map[v1.PodConditionType]brief
	}{
		"running": {in(pod("Never", nil, "a"), runs("a")), map[v1.PodConditionType]brief{
			"PodReadyToStartContainers": yes, "Initialized": yes, "Ready": yes, "ContainersReady": yes, "PodScheduled": yes,
		}},
		"succeeded": {in(pod("Never", nil, "a"), ended("a", 0)).ended(), map[v1.PodConditionType]brief{
			"PodReadyToStartContainers": {"False", "PodSandboxNotReady", "pod sandbox is not ready"},
			"Initialized":               {"True", "PodCompleted", ""},
			"Ready":                     {"False", "PodCompleted", ""},
			"ContainersReady":           {"False", "PodCompleted", ""},
			"PodScheduled":              yes,
		}},
		"failed": {in(pod("Never", nil, "a"), ended("a", 1)).ended(), map[v1.PodConditionType]brief{
			"PodReadyToStartContainers": {"False", "PodSandboxNotReady", "pod sandbox is not ready"},
			"Initialized":               yes,
			"Ready":                     {"False", "PodFailed", ""},
			"ContainersReady":           {"False", "PodFailed", ""},
			"PodScheduled":              yes,
		}},
		"initializing": {in(pod("Never", []string{"i", "j"}, "a", "b"), runs("i")), map[v1.PodConditionType]brief{
			"PodReadyToStartContainers": yes,
			"Initialized":               {"False", "ContainersNotInitialized", "containers with incomplete status: [i j]"},
			"Ready":                     {"False", "ContainersNotReady", "containers with unready status: [a b]"},
			"ContainersReady":           {"False", "ContainersNotReady", "containers with unready status: [a b]"},
			"PodScheduled":              yes,
		}},
		"all are to be restarted": {in(whole(pod("Never", []string{"i"}, "a", "b")), ended("a", 2), runs("b"), ended("i", 0)).was(v1.PodRunning), map[v1.PodConditionType]brief{
			"PodReadyToStartContainers": yes, "Initialized": yes, "PodScheduled": yes,
			"Ready":                   {"False", "ContainersNotReady", "containers with unready status: [a]"},
			"ContainersReady":         {"False", "ContainersNotReady", "containers with unready status: [a]"},
			"AllContainersRestarting": {"True", "RestartAllContainersStarted", "A container ended as a restart rule for all containers has it"},
		}},
		"all are being restarted": {in(whole(pod("Never", []string{"i"}, "a")), second(runs("i")), ended("a", 2), ended("i", 0)).was(v1.PodRunning), map[v1.PodConditionType]brief{
			"PodReadyToStartContainers": yes, "Initialized": yes, "PodScheduled": yes,
			"Ready":                   {"False", "ContainersNotReady", "containers with unready status: [a]"},
			"ContainersReady":         {"False", "ContainersNotReady", "containers with unready status: [a]"},
			"AllContainersRestarting": {Status: "False"},
		}},
		"ended instead": {in(whole(pod("Never", nil, "a")), ended("a", 2)).ended(), map[v1.PodConditionType]brief{
			"PodReadyToStartContainers": {"False", "PodSandboxNotReady", "pod sandbox is not ready"},
			"Initialized":               yes, "PodScheduled": yes,
			"Ready":                   {"False", "PodFailed", ""},
			"ContainersReady":         {"False", "PodFailed", ""},
			"AllContainersRestarting": {"False", "PodFailed", ""},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := Generate(c.in)
			if diff := cmp.Diff(c.want, briefs(s)); diff != "" {
				t.Error(diff)
			}
			for _, cond := range s.Conditions {
				if cond.ObservedGeneration != 4 || !cond.LastTransitionTime.Equal(&now) {
					t.Errorf("%+v", cond)
				}
			}
		})
	}
}

func TestReadinessGates(t *testing.T) {
	p := pod("Never", nil, "a")
	p.Spec.ReadinessGates = []v1.PodReadinessGate{{ConditionType: "x/y"}}
	ready := func() brief { return briefs(Generate(in(p, runs("a"))))["Ready"] }
	if got := ready(); got != (brief{"False", "ReadinessGatesNotReady", `corresponding condition of pod readiness gate "x/y" does not exist.`}) {
		t.Error(got)
	}
	p.Status.Conditions = []v1.PodCondition{{Type: "x/y", Status: v1.ConditionTrue}}
	if got := ready(); got.Status != "True" {
		t.Error(got)
	}
	if _, kept := briefs(Generate(in(p, runs("a"))))["x/y"]; !kept {
		t.Error("another's condition is lost")
	}
}

// A second status from the same input is the same, and transitions keep their
// times: conditions don't flap.
func TestStable(t *testing.T) {
	i := in(pod("Never", nil, "a"), runs("a"))
	first := Generate(i)
	i.Previous, i.Now = first, metav1.NewTime(now.Add(time.Hour))
	if diff := cmp.Diff(first, Generate(i)); diff != "" {
		t.Error(diff)
	}
	i.Runtime.Containers = []*runtimepod.Container{ended("a", 0)}
	last := Generate(i.ended())
	for _, c := range last.Conditions {
		if moved := c.LastTransitionTime.Equal(&i.Now); moved != (c.Status == "False") {
			t.Errorf("%+v", c)
		}
	}
}

func TestTerminalPhaseIsFinal(t *testing.T) {
	p := pod("Never", nil, "a")
	p.Status.Phase, p.Status.Reason = v1.PodFailed, "Evicted"
	s := Generate(in(p, ended("a", 0)).ended())
	if s.Phase != v1.PodFailed || s.Reason != "Evicted" {
		t.Errorf("%s %s", s.Phase, s.Reason)
	}
}

func TestOutcome(t *testing.T) {
	i := in(pod("Never", nil, "a"), runs("a"))
	i.Previous = Generate(i)
	i.Ending, i.Outcome = true, &Outcome{Reason: "DeadlineExceeded", Message: "too long"}
	if s := Generate(i); s.Phase != v1.PodRunning || s.Reason != "" {
		t.Errorf("told while something runs: %s %s", s.Phase, s.Reason)
	}
	i.Runtime.Containers = []*runtimepod.Container{ended("a", 0)}
	if s := Generate(i.ended()); s.Phase != v1.PodFailed || s.Reason != "DeadlineExceeded" || s.Message != "too long" {
		t.Errorf("%s %s %s", s.Phase, s.Reason, s.Message)
	}
}

func TestDetails(t *testing.T) {
	p := pod("Always", nil, "a")
	p.Spec.Containers[0].VolumeMounts = []v1.VolumeMount{{Name: "v", MountPath: "/v", ReadOnly: true}, {Name: "w", MountPath: "/w"}}
	second := runs("a")
	second.RestartCount, second.ID = 1, "second"
	second.User = &v1.ContainerUser{Linux: &v1.LinuxContainerUser{UID: 5}}
	first := ended("a", 1)
	first.Message = strings.Repeat("x", 20000)
	s := Generate(in(p, second, first))
	want := v1.ContainerStatus{
		Name: "a", Image: "img", ImageID: "ref", ContainerID: "errand://second", RestartCount: 1, Ready: true, Started: ptr.To(true),
		State: v1.ContainerState{Running: &v1.ContainerStateRunning{StartedAt: metav1.NewTime(begin)}},
		LastTerminationState: v1.ContainerState{Terminated: &v1.ContainerStateTerminated{
			ExitCode: 1, Reason: "Error", Message: strings.Repeat("x", 12*1024), ContainerID: "errand://a-id",
			StartedAt: metav1.NewTime(begin), FinishedAt: metav1.NewTime(begin.Add(time.Minute)),
		}},
		User:      second.User,
		Resources: &v1.ResourceRequirements{},
		VolumeMounts: []v1.VolumeMountStatus{
			{Name: "v", MountPath: "/v", ReadOnly: true, RecursiveReadOnly: ptr.To(v1.RecursiveReadOnlyDisabled)},
			{Name: "w", MountPath: "/w"},
		},
	}
	if diff := cmp.Diff(want, s.ContainerStatuses[0]); diff != "" {
		t.Error(diff)
	}
	if s.PodIP != "10.0.0.2" || s.HostIP != "192.0.2.1" || s.QOSClass != v1.PodQOSBestEffort || s.ObservedGeneration != 4 {
		t.Errorf("%+v", s)
	}
}

// The address is kept when the sandbox is gone, and the last end when the
// runtime has forgotten it.
func TestKept(t *testing.T) {
	p := pod("Always", nil, "a")
	i := in(p, runs("a"), ended("a", 3))
	i.Previous = Generate(i)
	i.Runtime = &runtimepod.Pod{Containers: []*runtimepod.Container{runs("a")}}
	s := Generate(i)
	if s.PodIP != "10.0.0.2" || s.ContainerStatuses[0].LastTerminationState.Terminated == nil {
		t.Errorf("%+v", s)
	}
}

func TestHostNetwork(t *testing.T) {
	p := pod("Never", nil, "a")
	p.Spec.HostNetwork = true
	if s := Generate(in(p, runs("a"))); s.PodIP != "192.0.2.1" || len(s.PodIPs) != 1 {
		t.Errorf("%+v", s.PodIPs)
	}
}

func TestRejected(t *testing.T) {
	s := Rejected(pod("Never", nil, "a"), "UnsupportedPodSpec", "why")
	if s.Phase != v1.PodFailed || s.Reason != "UnsupportedPodSpec" || s.Message != "Pod was rejected: why" {
		t.Errorf("%+v", s)
	}
}
