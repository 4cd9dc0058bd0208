//go:build node

package critest

import (
	"context"
	"errors"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	remote "k8s.io/cri-client/pkg"
)

const forever = "trap 'exit 7' TERM; echo up; while :; do sleep 1; done"

func (p *Pod) wantState(id string, want runtimeapi.ContainerState) {
	p.Helper()
	if got := p.status(id).GetState(); got != want {
		p.Errorf("container is %v, want %v", got, want)
	}
}

// wantCode wants an error of a code. Of a foreign runtime only those codes are
// asked that the node tells apart; the CRI's client has a value of its own for one.
func (p *Pod) wantCode(err error, want codes.Code) {
	p.Helper()
	switch {
	case want == codes.DeadlineExceeded && errors.Is(err, remote.ErrCommandTimedOut):
	case p.Foreign && err != nil && want != codes.NotFound && want != codes.DeadlineExceeded:
	case status.Code(err) != want:
		p.Errorf("got %v (code %v), want code %v", err, status.Code(err), want)
	}
}

// ready waits until a container has written "up".
func (p *Pod) ready(id string) {
	p.Helper()
	for p.Ctx.Err() == nil {
		if out, _, err := p.Runtime.ExecSync(p.Ctx, id, []string{"true"}, 0); err == nil && len(out) == 0 && strings.Contains(p.log(p.status(id)), "up") {
			return
		}
	}
	p.Fatal("the container never came up")
}

func lifecycle(p *Pod) {
	sb := p.sandbox()
	if sb.GetState() != runtimeapi.PodSandboxState_SANDBOX_READY || sb.GetNetwork().GetIp() == "" {
		p.Errorf("sandbox %v", sb)
	}
	id := p.create("echo hello; echo bye >&2")
	p.wantState(id, runtimeapi.ContainerState_CONTAINER_CREATED)
	p.must(p.Runtime.StartContainer(p.Ctx, id))
	st := p.wait(id)
	if st.GetReason() != "Completed" || st.GetExitCode() != 0 || st.GetImageRef() == "" || st.GetImageId() == "" {
		p.Errorf("status %v", st)
	}
	if !(st.GetCreatedAt() > 0 && st.GetStartedAt() >= st.GetCreatedAt() && st.GetFinishedAt() >= st.GetStartedAt()) {
		p.Errorf("times %d, %d, %d", st.GetCreatedAt(), st.GetStartedAt(), st.GetFinishedAt())
	}
	if got := p.log(st); !strings.Contains(got, "hello\n") || !strings.Contains(got, "bye\n") {
		p.Errorf("log %q", got)
	}
	p.must(p.Runtime.RemoveContainer(p.Ctx, id))
	_, err := p.Runtime.ContainerStatus(p.Ctx, id, false)
	p.wantCode(err, codes.NotFound)
	p.must(p.Runtime.StopPodSandbox(p.Ctx, p.ID()))
	if sb := p.sandbox(); sb.GetState() != runtimeapi.PodSandboxState_SANDBOX_NOTREADY {
		p.Errorf("stopped sandbox is %v", sb.GetState())
	}
	p.must(p.Runtime.RemovePodSandbox(p.Ctx, p.ID()))
	_, err = p.Runtime.PodSandboxStatus(p.Ctx, p.ID(), false)
	p.wantCode(err, codes.NotFound)
}

func exitReasons(p *Pod) {
	for script, want := range map[string]struct {
		code   int32
		reason string
	}{
		"true":        {0, "Completed"},
		"exit 3":      {3, "Error"},
		"kill -9 $$":  {137, "Error"},
		"kill -15 $$": {143, "Error"},
	} {
		// As the first process of its namespace a shell can't kill itself.
		if strings.HasPrefix(script, "kill") {
			script = "sh -c '" + script + "'; exit $?"
		}
		st := p.wait(p.start(script))
		if st.GetExitCode() != want.code || st.GetReason() != want.reason {
			p.Errorf("%q: %d %s, want %d %s", script, st.GetExitCode(), st.GetReason(), want.code, want.reason)
		}
	}
}

func startError(p *Pod) {
	for _, bad := range []func(*runtimeapi.ContainerConfig){
		func(c *runtimeapi.ContainerConfig) { c.Command = []string{"no-such-command"} },
		func(c *runtimeapi.ContainerConfig) { c.Command = []string{"/etc"} },
	} {
		id := p.create("", bad)
		err := p.Runtime.StartContainer(p.Ctx, id)
		if err == nil {
			p.Error("a command that can't be executed was started")
		}
		if p.CRIO { // it removes what couldn't be started
			_, err := p.Runtime.ContainerStatus(p.Ctx, id, false)
			p.wantCode(err, codes.NotFound)
			continue
		}
		st := p.status(id)
		if st.GetState() != runtimeapi.ContainerState_CONTAINER_EXITED || st.GetExitCode() != 128 || st.GetReason() != "StartError" || st.GetMessage() == "" {
			p.Errorf("status %v", st)
		}
		p.wantCode(p.Runtime.StartContainer(p.Ctx, id), codes.FailedPrecondition)
	}
}

func stopGraceful(p *Pod) {
	id := p.start(forever)
	p.ready(id)
	began := time.Now()
	p.must(p.Runtime.StopContainer(p.Ctx, id, 30))
	if st := p.status(id); st.GetExitCode() != 7 {
		p.Errorf("status %v", st)
	}
	if d := time.Since(began); d > 15*time.Second {
		p.Errorf("stopping waited out the grace period: %v", d)
	}
	// Its own signal.
	id = p.start(strings.Replace(forever, "TERM", "INT", 1), func(c *runtimeapi.ContainerConfig) { c.StopSignal = runtimeapi.Signal_SIGNAL_SIGINT })
	p.ready(id)
	p.must(p.Runtime.StopContainer(p.Ctx, id, 30))
	if st := p.status(id); st.GetExitCode() != 7 || st.GetStopSignal() != runtimeapi.Signal_SIGNAL_SIGINT {
		p.Errorf("status %v", st)
	}
}

func stopKills(p *Pod) {
	for _, timeout := range []int64{0, 1} {
		id := p.start("trap '' TERM; echo up; while :; do sleep 1; done")
		p.ready(id)
		p.must(p.Runtime.StopContainer(p.Ctx, id, timeout))
		if st := p.status(id); st.GetExitCode() != 137 || st.GetState() != runtimeapi.ContainerState_CONTAINER_EXITED {
			p.Errorf("status %v", st)
		}
	}
}

func stopSandboxKills(p *Pod) {
	id := p.start(forever)
	p.must(p.Runtime.StopPodSandbox(p.Ctx, p.ID()))
	p.wantState(id, runtimeapi.ContainerState_CONTAINER_EXITED)
	_, err := p.Runtime.CreateContainer(p.Ctx, p.ID(), p.container("true"), p.Config)
	if err == nil {
		p.Error("a container was created in a stopped sandbox")
	}
}

func removeKills(p *Pod) {
	id := p.start(forever)
	p.must(p.Runtime.RemoveContainer(p.Ctx, id))
	_, err := p.Runtime.ContainerStatus(p.Ctx, id, false)
	p.wantCode(err, codes.NotFound)
	p.start(forever)
	p.must(p.Runtime.RemovePodSandbox(p.Ctx, p.ID()))
}

func idempotence(p *Pod) {
	id := p.create("true")
	p.must(p.Runtime.StopContainer(p.Ctx, id, 1)) // not started: nothing to do
	p.must(p.Runtime.StartContainer(p.Ctx, id))
	p.wait(id)
	for range 2 {
		p.must(p.Runtime.StopContainer(p.Ctx, id, 1))
	}
	for range 2 {
		p.must(p.Runtime.RemoveContainer(p.Ctx, id))
	}
	for range 2 {
		p.must(p.Runtime.StopPodSandbox(p.Ctx, p.ID()))
	}
	for range 2 {
		p.must(p.Runtime.RemovePodSandbox(p.Ctx, p.ID()))
	}
	p.must(p.Runtime.StopPodSandbox(p.Ctx, p.ID()))
}

func notFound(p *Pod) {
	const id = "feedfacefeedfacefeedface"
	_, err := p.Runtime.ContainerStatus(p.Ctx, id, false)
	p.wantCode(err, codes.NotFound)
	_, err = p.Runtime.PodSandboxStatus(p.Ctx, id, false)
	p.wantCode(err, codes.NotFound)
	p.wantCode(p.Runtime.StartContainer(p.Ctx, id), codes.NotFound)
	missing := codes.NotFound
	if p.CRIO { // what is missing for a container has no code of its own
		missing = codes.Unknown
	}
	_, err = p.Runtime.CreateContainer(p.Ctx, id, p.container("true"), p.Config)
	p.wantCode(err, missing)
	_, err = p.Runtime.CreateContainer(p.Ctx, p.ID(), p.container("true", func(c *runtimeapi.ContainerConfig) {
		c.Image.Image = "no.such/image:here"
	}), p.Config)
	p.wantCode(err, missing)
	p.must(p.Runtime.RemoveContainer(p.Ctx, id))
	p.must(p.Runtime.RemovePodSandbox(p.Ctx, id))
}

func preconditions(p *Pod) {
	if _, err := p.Runtime.RunPodSandbox(p.Ctx, p.Config, "no-such-handler"); err == nil || !strings.Contains(err.Error(), `no runtime for "no-such-handler" is configured`) {
		p.Errorf("unknown handler: %v", err)
	}
	id := p.start(forever)
	if p.Runtime.StartContainer(p.Ctx, id) == nil {
		p.Error("a container was started twice")
	}
	ended := p.start("true")
	p.wait(ended)
	if _, _, err := p.Runtime.ExecSync(p.Ctx, ended, []string{"true"}, 0); err == nil {
		p.Error("a command ran in a container that has exited")
	}
}

func duplicateNames(p *Pod) {
	p.ID()
	// CRI-O takes it for the first's repetition.
	if id, err := p.Runtime.RunPodSandbox(p.Ctx, p.Config, p.Handler); err == nil && (!p.CRIO || id != p.ID()) {
		p.Errorf("a second sandbox %s of one name", id)
	}
	c := p.container("true")
	first, err := p.Runtime.CreateContainer(p.Ctx, p.ID(), c, p.Config)
	p.must(err)
	if id, err := p.Runtime.CreateContainer(p.Ctx, p.ID(), c, p.Config); err == nil && (!p.CRIO || id != first) {
		p.Errorf("a second container %s of one name", id)
	}
	c.Metadata.Attempt++
	_, err = p.Runtime.CreateContainer(p.Ctx, p.ID(), c, p.Config)
	p.must(err)
}

func filters(p *Pod) {
	a, b := p.start(forever), p.create("true")
	count := func(f *runtimeapi.ContainerFilter) int {
		p.Helper()
		list, err := p.Runtime.ListContainers(p.Ctx, f)
		p.must(err)
		return len(list)
	}
	running := &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING}
	for i, tc := range []struct {
		f    *runtimeapi.ContainerFilter
		want int
	}{
		{&runtimeapi.ContainerFilter{PodSandboxId: p.ID()}, 2},
		{&runtimeapi.ContainerFilter{PodSandboxId: p.ID(), State: running}, 1},
		{&runtimeapi.ContainerFilter{Id: a}, 1},
		{&runtimeapi.ContainerFilter{Id: b, State: running}, 0},
		{&runtimeapi.ContainerFilter{PodSandboxId: p.ID(), LabelSelector: p.status(b).GetLabels()}, 1},
		{&runtimeapi.ContainerFilter{LabelSelector: map[string]string{"name": "nobody"}}, 0},
	} {
		if got := count(tc.f); got != tc.want {
			p.Errorf("filter %d matches %d containers, want %d", i, got, tc.want)
		}
	}
	for want, f := range map[int]*runtimeapi.PodSandboxFilter{
		1: {LabelSelector: p.Config.Labels},
		0: {Id: p.ID(), State: &runtimeapi.PodSandboxStateValue{State: runtimeapi.PodSandboxState_SANDBOX_NOTREADY}},
	} {
		list, err := p.Runtime.ListPodSandbox(p.Ctx, f)
		p.must(err)
		if len(list) != want {
			p.Errorf("filter %v matches %d sandboxes, want %d", f, len(list), want)
		}
	}
}

func events(p *Pod) {
	ctx, cancel := context.WithCancel(p.Ctx)
	ch, subscribed, ended := make(chan *runtimeapi.ContainerEventResponse, 100), make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- p.Runtime.GetContainerEvents(ctx, ch, func(runtimeapi.RuntimeService_GetContainerEventsClient) { close(subscribed) })
	}()
	defer func() { cancel(); <-ended }()
	<-subscribed
	id := p.start("exit 5")
	next := func(want runtimeapi.ContainerEventType) *runtimeapi.ContainerEventResponse {
		p.Helper()
		for {
			select {
			case e := <-ch:
				if e.GetContainerId() != id {
					continue // a runtime may tell of the sandbox as of a container
				}
				if e.GetContainerEventType() != want {
					p.Fatalf("event %v, want %v", e.GetContainerEventType(), want)
				}
				if e.GetPodSandboxStatus().GetId() != p.ID() {
					p.Errorf("event of sandbox %q", e.GetPodSandboxStatus().GetId())
				}
				return e
			case <-p.Ctx.Done():
				p.Fatalf("no event %v", want)
			}
		}
	}
	if p.CRIO { // unless configured to, it tells of none, and the list only shows that a container has ended
		next(runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT)
		return
	}
	next(runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT)
	next(runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT)
	e := next(runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT)
	if len(e.GetContainersStatuses()) != 1 || e.GetContainersStatuses()[0].GetExitCode() != 5 {
		p.Errorf("the end came with %v", e.GetContainersStatuses())
	}
	p.must(p.Runtime.RemoveContainer(p.Ctx, id))
	next(runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT)
}
