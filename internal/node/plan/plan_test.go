package plan

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"errand.dev/errand/internal/node/runtimepod"
)

var begin = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

func pod(policy v1.RestartPolicy, inits []v1.Container, names ...string) *v1.Pod {
	p := &v1.Pod{Spec: v1.PodSpec{RestartPolicy: policy, InitContainers: inits}}
	for _, name := range names {
		p.Spec.Containers = append(p.Spec.Containers, v1.Container{Name: name, Image: "img"})
	}
	return p
}

func inits(names ...string) []v1.Container {
	var list []v1.Container
	for _, name := range names {
		c := v1.Container{Name: name, Image: "img"}
		if name[0] == 's' {
			c.RestartPolicy = ptr.To(v1.ContainerRestartPolicyAlways)
		}
		list = append(list, c)
	}
	return list
}

func run(name string, s runtimepod.State, code int32) *runtimepod.Container {
	return &runtimepod.Container{
		ID: name, Name: name, SandboxID: "sb", State: s, ExitCode: code,
		Definition: runtimepod.Definition(&v1.Container{Name: name, Image: "img"}),
	}
}

func of(sandbox string, c *runtimepod.Container) *runtimepod.Container {
	c.SandboxID = sandbox
	return c
}

func ready(containers ...*runtimepod.Container) *runtimepod.Pod {
	return &runtimepod.Pod{Sandboxes: []runtimepod.Sandbox{{ID: "sb", Attempt: 1, Ready: true}}, Containers: containers}
}

func notReady(containers ...*runtimepod.Container) *runtimepod.Pod {
	p := ready(containers...)
	p.Sandboxes[0].Ready = false
	return p
}

// brief is a plan with names instead of pointers. Those to be killed without grace have an exclamation mark.
type brief struct {
	Finished   bool
	Kill       []string
	Discard    []string
	NewSandbox bool
	Attempt    uint32
	Ephemeral  []int
	Init       []int
	Start      []int
}

func briefly(a Actions) brief {
	b := brief{Finished: a.Finished, NewSandbox: a.NewSandbox, Attempt: a.Attempt, Ephemeral: a.Ephemeral, Init: a.Init, Start: a.Start}
	for _, k := range a.Kill {
		name := k.Container.Name
		if k.Now {
			name += "!"
		}
		b.Kill = append(b.Kill, name)
	}
	for _, d := range a.Discard {
		b.Discard = append(b.Discard, d.Name)
	}
	return b
}

// debugged is the pod with ephemeral containers in it.
func debugged(p *v1.Pod, names ...string) *v1.Pod {
	for _, name := range names {
		p.Spec.EphemeralContainers = append(p.Spec.EphemeralContainers, v1.EphemeralContainer{EphemeralContainerCommon: v1.EphemeralContainerCommon{Name: name}})
	}
	return p
}

func TestCompute(t *testing.T) {
	const (
		never     = v1.RestartPolicyNever
		onFailure = v1.RestartPolicyOnFailure
		always    = v1.RestartPolicyAlways
		created   = runtimepod.Created
		running   = runtimepod.Running
		exited    = runtimepod.Exited
		unknown   = runtimepod.Unknown
	)
	changed := func(c *runtimepod.Container) *runtimepod.Container { c.Definition = "other"; return c }
	for name, c := range map[string]struct {
		pod  *v1.Pod
		rt   *runtimepod.Pod
		want brief
	}{
		"nothing yet":                    {pod(never, nil, "a"), &runtimepod.Pod{}, brief{NewSandbox: true}},
		"sandbox made":                   {pod(never, nil, "a", "b"), ready(), brief{Start: []int{0, 1}}},
		"one runs":                       {pod(never, nil, "a", "b"), ready(run("a", running, 0)), brief{Start: []int{1}}},
		"all run":                        {pod(never, nil, "a"), ready(run("a", running, 0)), brief{}},
		"created, never started":         {pod(never, nil, "a"), ready(run("a", created, 0)), brief{Discard: []string{"a"}, Start: []int{0}}},
		"done":                           {pod(never, nil, "a"), ready(run("a", exited, 0)), brief{Finished: true}},
		"failed for good":                {pod(never, nil, "a"), ready(run("a", exited, 1)), brief{Finished: true}},
		"one failed, one runs":           {pod(never, nil, "a", "b"), ready(run("a", exited, 1), run("b", running, 0)), brief{}},
		"OnFailure succeeded":            {pod(onFailure, nil, "a"), ready(run("a", exited, 0)), brief{Finished: true}},
		"OnFailure failed":               {pod(onFailure, nil, "a"), ready(run("a", exited, 1)), brief{Start: []int{0}}},
		"Always succeeded":               {pod(always, nil, "a"), ready(run("a", exited, 0)), brief{Start: []int{0}}},
		"lost sight of":                  {pod(never, nil, "a"), ready(run("a", unknown, 0)), brief{Kill: []string{"a"}}},
		"image changed":                  {pod(always, nil, "a"), ready(changed(run("a", running, 0))), brief{Kill: []string{"a"}}},
		"image changed, never restarted": {pod(never, nil, "a"), ready(changed(run("a", running, 0))), brief{}},

		"sandbox lost, Never":                      {pod(never, nil, "a"), notReady(run("a", exited, 137)), brief{Finished: true}},
		"sandbox lost, Always":                     {pod(always, nil, "a"), notReady(run("a", exited, 137)), brief{NewSandbox: true, Attempt: 2}},
		"sandbox lost, OnFailure succeeded":        {pod(onFailure, nil, "a"), notReady(run("a", exited, 0)), brief{Finished: true}},
		"sandbox lost before anything ran":         {pod(never, nil, "a"), notReady(), brief{NewSandbox: true, Attempt: 2}},
		"sandbox lost, something runs":             {pod(always, nil, "a"), notReady(run("a", running, 0)), brief{Kill: []string{"a"}}},
		"sandbox lost, second container never ran": {pod(never, nil, "a", "b"), notReady(run("a", exited, 0)), brief{Finished: true}},
		"new sandbox, all begins again":            {pod(always, inits("i"), "a"), ready(of("old", run("i", exited, 0)), of("old", run("a", exited, 137))), brief{Init: []int{0}}},
		"new sandbox, one had succeeded":           {pod(onFailure, nil, "a", "b"), ready(of("old", run("a", exited, 0)), of("old", run("b", exited, 137))), brief{Start: []int{1}}},

		"first init":                  {pod(never, inits("i0", "i1"), "a"), ready(), brief{Init: []int{0}}},
		"init runs":                   {pod(never, inits("i0", "i1"), "a"), ready(run("i0", running, 0)), brief{}},
		"second init":                 {pod(never, inits("i0", "i1"), "a"), ready(run("i0", exited, 0)), brief{Init: []int{1}}},
		"inits done":                  {pod(never, inits("i0", "i1"), "a"), ready(run("i0", exited, 0), run("i1", exited, 0)), brief{Start: []int{0}}},
		"init failed, Never":          {pod(never, inits("i0", "i1"), "a"), ready(run("i0", exited, 1)), brief{Finished: true}},
		"init failed, OnFailure":      {pod(onFailure, inits("i0", "i1"), "a"), ready(run("i0", exited, 1)), brief{Init: []int{0}}},
		"init gone once the pod runs": {pod(always, inits("i0"), "a"), ready(run("a", running, 0)), brief{}},

		"sidecar first":                     {pod(never, inits("s0", "i1"), "a"), ready(), brief{Init: []int{0}}},
		"sidecar runs":                      {pod(never, inits("s0", "i1"), "a"), ready(run("s0", running, 0)), brief{Init: []int{1}}},
		"sidecar died during init":          {pod(never, inits("s0", "i1"), "a"), ready(run("s0", exited, 1), run("i1", running, 0)), brief{Init: []int{0}}},
		"sidecar died later":                {pod(never, inits("s0"), "a"), ready(run("s0", exited, 1), run("a", running, 0)), brief{Init: []int{0}}},
		"sidecar doesn't keep the pod":      {pod(never, inits("s0"), "a"), ready(run("s0", running, 0), run("a", exited, 0)), brief{Finished: true}},
		"dead sidecar of a done pod":        {pod(never, inits("s0"), "a"), ready(run("s0", exited, 1), run("a", exited, 0)), brief{Finished: true}},
		"ephemeral":                         {debugged(pod(never, nil, "a"), "e0", "e1"), ready(run("a", running, 0), run("e0", running, 0)), brief{Ephemeral: []int{1}}},
		"ephemeral, once":                   {debugged(pod(always, nil, "a"), "e0"), ready(run("a", running, 0), run("e0", exited, 1)), brief{}},
		"ephemeral doesn't keep the pod":    {debugged(pod(never, nil, "a"), "e0", "e1"), ready(run("a", exited, 0), run("e0", running, 0)), brief{Finished: true}},
		"ephemeral while an init runs":      {debugged(pod(never, inits("i0"), "a"), "e0"), ready(run("i0", running, 0)), brief{Ephemeral: []int{0}}},
		"ephemeral, created, never started": {debugged(pod(never, nil, "a"), "e0"), ready(run("a", running, 0), run("e0", created, 0)), brief{Discard: []string{"e0"}, Ephemeral: []int{0}}},
		"last sidecar runs":                 {pod(never, inits("s0", "s1"), "a"), ready(run("s0", running, 0), run("s1", running, 0)), brief{Start: []int{0}}},
	} {
		t.Run(name, func(t *testing.T) {
			a := Compute(Input{Pod: c.pod, Runtime: c.rt})
			if diff := cmp.Diff(c.want, briefly(a)); diff != "" {
				t.Error(diff)
			}
			if idle := cmp.Equal(c.want, brief{}); idle != a.Idle() {
				t.Errorf("Idle = %v", a.Idle())
			}
		})
	}
}

func TestOOMKilledInitFails(t *testing.T) {
	i := run("i0", runtimepod.Exited, 0)
	i.Reason = "OOMKilled"
	if a := Compute(Input{Pod: pod(v1.RestartPolicyNever, inits("i0"), "a"), Runtime: ready(i)}); !a.Finished {
		t.Errorf("%+v", a)
	}
}

// Nothing is started while a postStart hook is under way, but what must go goes.
func TestPostStart(t *testing.T) {
	const running, exited = runtimepod.Running, runtimepod.Exited
	always := v1.RestartPolicyAlways
	pending, failed := map[string]bool{"a": true}, map[string]bool{"a": true}
	for name, c := range map[string]struct {
		in   Input
		want brief
		kill string // the message
	}{
		"the next waits":           {Input{Pod: pod(always, nil, "a", "b"), Runtime: ready(run("a", running, 0)), PostStarting: pending}, brief{}, ""},
		"so do restarts":           {Input{Pod: pod(always, nil, "a", "b"), Runtime: ready(run("a", running, 0), run("b", exited, 1)), PostStarting: pending}, brief{}, ""},
		"and what a sidecar holds": {Input{Pod: pod(always, inits("s", "i"), "a"), Runtime: ready(run("s", running, 0)), PostStarting: map[string]bool{"s": true}}, brief{}, ""},
		"it failed": {Input{Pod: pod(always, nil, "a", "b"), Runtime: ready(run("a", running, 0)), PostStartFailed: failed},
			brief{Kill: []string{"a"}, Start: []int{1}}, "FailedPostStartHook"},
		"a sidecar's failed": {Input{Pod: pod(always, inits("s", "i"), "a"), Runtime: ready(run("s", running, 0)), PostStartFailed: map[string]bool{"s": true}},
			brief{Kill: []string{"s"}}, "FailedPostStartHook"},
	} {
		t.Run(name, func(t *testing.T) {
			a := Compute(c.in)
			got := brief{Finished: a.Finished, NewSandbox: a.NewSandbox, Init: a.Init, Start: a.Start}
			for _, k := range a.Kill {
				got.Kill = append(got.Kill, k.Container.Name)
				if k.Message != c.kill {
					t.Errorf("killed with %q", k.Message)
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A sidecar that hasn't passed its startup probe keeps what follows waiting, and
// one that failed it goes.
func TestSidecarStartup(t *testing.T) {
	p := pod(v1.RestartPolicyNever, inits("s", "i"), "a")
	p.Spec.InitContainers[0].StartupProbe = &v1.Probe{}
	in := Input{Pod: p, Runtime: ready(run("s", runtimepod.Running, 0)), Started: func(string) bool { return false }}
	if a := Compute(in); !a.Idle() {
		t.Errorf("%+v", a)
	}
	in.Unhealthy = map[string]string{"s": "startup"}
	if a := Compute(in); len(a.Kill) != 1 || a.Kill[0].Message != "Init container s failed startup probe" || a.Kill[0].Probe != "startup" {
		t.Errorf("%+v", a)
	}
	in.Unhealthy, in.Started = nil, func(string) bool { return true }
	if a := Compute(in); !cmp.Equal(a.Init, []int{1}) {
		t.Errorf("%+v", a)
	}
}

func TestUnhealthy(t *testing.T) {
	c := run("a", runtimepod.Running, 0)
	in := Input{Pod: pod(v1.RestartPolicyAlways, nil, "a"), Runtime: ready(c), Unhealthy: map[string]string{"a": "liveness"}}
	a := Compute(in)
	if len(a.Kill) != 1 || a.Kill[0].Message != "Container a failed liveness probe, will be restarted" {
		t.Errorf("%+v", a.Kill)
	}
}

func TestCrashLoop(t *testing.T) {
	var b CrashLoop
	now := begin
	for i, want := range []time.Duration{0, 10, 20, 40, 80, 160, 300, 300} {
		last := &runtimepod.Container{FinishedAt: now}
		until := b.Until(last)
		if got := until.Sub(now); got != want*time.Second {
			t.Errorf("restart %d waits %v, not %vs", i+1, got, want)
		}
		now = until
		b = b.Next(last, now)
		now = now.Add(time.Second) // and it runs for a second
	}
	// Ten minutes of running make up for the past.
	last := &runtimepod.Container{FinishedAt: now.Add(11 * time.Minute)}
	if until := b.Until(last); !until.Equal(last.FinishedAt) {
		t.Errorf("still waits %v", until.Sub(last.FinishedAt))
	}
	if next := b.Next(last, last.FinishedAt); next.Delay != CrashLoopInitial {
		t.Errorf("then waits %v", next.Delay)
	}
}

func TestRecall(t *testing.T) {
	for restarts, want := range map[int32]time.Duration{0: 0, 1: 10, 2: 20, 3: 40, 6: 300, 1000: 300} {
		got := Recall(&runtimepod.Container{RestartCount: restarts, StartedAt: begin, FinishedAt: begin})
		if got.Delay != want*time.Second {
			t.Errorf("after %d restarts: %v, not %vs", restarts, got.Delay, want)
		}
	}
}
