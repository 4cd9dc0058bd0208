package criclient

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	remote "k8s.io/cri-client/pkg"
)

// A runtime that isn't there when errand starts, comes, goes and comes again.
func TestComesAndGoes(t *testing.T) {
	path := socket(t)
	w := run(t, path, nil)
	away := func() {
		t.Helper()
		_, err := w.Runtime().Status(t.Context(), false)
		if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), path) {
			t.Errorf("a call to a runtime that is away gives %v", err)
		}
		if err := w.Runtime().StartContainer(t.Context(), "x"); status.Code(err) != codes.Unavailable {
			t.Errorf("a call to a runtime that is away gives %v", err)
		}
		if _, err := w.Images().ListImages(t.Context(), nil); status.Code(err) != codes.Unavailable {
			t.Errorf("a call to a runtime that is away gives %v", err)
		}
	}
	away()
	for range 2 {
		stop := serve(t, path, &server{driver: runtimeapi.CgroupDriver_CGROUPFS})
		receive(t, w.changes, "the runtime to be found")
		if v, err := w.Runtime().Version(t.Context(), ""); err != nil || v.GetRuntimeName() != "fake" {
			t.Errorf("the version is %v, %v", v, err)
		}
		ended := make(chan error, 1)
		established := make(chan struct{})
		go func() {
			ended <- w.Runtime().GetContainerEvents(t.Context(), nil, func(runtimeapi.RuntimeService_GetContainerEventsClient) { close(established) })
		}()
		receive(t, established, "the subscription")
		stop()
		receive(t, w.changes, "the runtime to be missed")
		if err := receive(t, ended, "the end of the events"); status.Code(err) != codes.Unavailable {
			t.Errorf("the events ended with %v", err)
		}
		away()
	}
}

// Who asks for events of a runtime that is away waits for it.
func TestEventsWaitForTheRuntime(t *testing.T) {
	path := socket(t)
	w := run(t, path, nil)
	established := make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		ended <- w.Runtime().GetContainerEvents(t.Context(), nil, func(runtimeapi.RuntimeService_GetContainerEventsClient) { close(established) })
	}()
	stop := serve(t, path, &server{driver: runtimeapi.CgroupDriver_CGROUPFS})
	receive(t, established, "the subscription")
	stop()
	receive(t, ended, "the end of the events")
}

// A runtime that doesn't end a command whose time is over doesn't hold a probe up.
func TestExecTimeout(t *testing.T) {
	path := socket(t)
	serve(t, path, &server{driver: runtimeapi.CgroupDriver_CGROUPFS})
	w := run(t, path, nil)
	began := time.Now()
	_, _, err := w.Runtime().ExecSync(t.Context(), "x", []string{"sleep"}, time.Millisecond)
	if took := time.Since(began); !errors.Is(err, remote.ErrCommandTimedOut) || took > patience {
		t.Errorf("got %v after %s", err, took)
	}
}

func TestUnsuited(t *testing.T) {
	for want, s := range map[string]*server{
		"SystemdCgroup = false": {driver: runtimeapi.CgroupDriver_SYSTEMD},
		"containerd 2.0":        {noConfig: true},
	} {
		path := socket(t)
		serve(t, path, s)
		w := run(t, path, nil)
		if err := w.Err(); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), want) {
			t.Errorf("the error is %v, want %q in it", err, want)
		}
	}
}

func TestSocketPath(t *testing.T) {
	for endpoint, want := range map[string]string{
		"unix:///run/containerd/containerd.sock": "/run/containerd/containerd.sock",
		"/run/containerd/containerd.sock":        "",
		"unix://run/containerd.sock":             "",
		"tcp://127.0.0.1:1":                      "",
		"unix:run/c.sock":                        "",
		"unix:///c.sock?x":                       "",
		"":                                       "",
	} {
		got, err := SocketPath(endpoint)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q is %q, %v; want %q", endpoint, got, err, want)
		}
	}
}

// What is errand's bears its label, and nothing else is seen.
func TestOwner(t *testing.T) {
	path := socket(t)
	s := &server{driver: runtimeapi.CgroupDriver_CGROUPFS}
	serve(t, path, s)
	w := run(t, path, nil)
	given := &runtimeapi.PodSandboxConfig{Labels: map[string]string{"a": "b"}}
	container := &runtimeapi.ContainerConfig{}
	_, err := w.Runtime().RunPodSandbox(t.Context(), given, "")
	_, err2 := w.Runtime().CreateContainer(t.Context(), "sandbox", container, given)
	_, err3 := w.Runtime().ListContainers(t.Context(), &runtimeapi.ContainerFilter{Id: "x", LabelSelector: map[string]string{"a": "b"}})
	if err := errors.Join(err, err2, err3); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for what, labels := range map[string]map[string]string{
		"the sandbox":             s.ran.GetLabels(),
		"the container":           s.created.GetConfig().GetLabels(),
		"the container's sandbox": s.created.GetSandboxConfig().GetLabels(),
		"the filter":              s.listed.GetLabelSelector(),
	} {
		if labels[LabelOwner] != "me" || what != "the container" && labels["a"] != "b" {
			t.Errorf("%s has the labels %v", what, labels)
		}
	}
	if s.listed.GetId() != "x" || len(given.GetLabels()) != 1 || container.GetLabels() != nil {
		t.Errorf("filter %v, configurations %v and %v", s.listed, given, container)
	}
}

// A start that was cut off before there was a process hasn't been one.
func TestInterrupted(t *testing.T) {
	const exited = runtimeapi.ContainerState_CONTAINER_EXITED
	for _, tc := range []struct {
		status *runtimeapi.ContainerStatus
		want   bool
	}{
		{&runtimeapi.ContainerStatus{State: exited, Reason: "StartError", Message: "failed to create containerd task: context canceled"}, true},
		{&runtimeapi.ContainerStatus{State: exited, Reason: "StartError", Message: "failed to create containerd task: failed to create shim task: context canceled"}, true},
		{&runtimeapi.ContainerStatus{State: exited, Reason: "StartError", Message: "failed to start containerd task \"x\": context canceled"}, false},
		{&runtimeapi.ContainerStatus{State: exited, Reason: "StartError", Message: "failed to create containerd task: exec: \"nosuch\": not found"}, false},
		{&runtimeapi.ContainerStatus{State: exited, Reason: "Error", Message: "failed to create containerd task: context canceled"}, false},
		{&runtimeapi.ContainerStatus{State: runtimeapi.ContainerState_CONTAINER_RUNNING}, false},
	} {
		if got := interrupted(tc.status); got != tc.want {
			t.Errorf("%v: %v", tc.status, got)
		}
	}
}

func TestAmend(t *testing.T) {
	const exited, running = runtimeapi.ContainerState_CONTAINER_EXITED, runtimeapi.ContainerState_CONTAINER_RUNNING
	type status = runtimeapi.ContainerStatus
	never := time.Time{}.UnixNano()
	for name, tc := range map[string]struct{ said, want *status }{
		"interrupted":      {&status{State: exited, Reason: "StartError", Message: "failed to create containerd task: context canceled", ExitCode: 128, FinishedAt: 9}, &status{}},
		"over":             {&status{State: exited, StartedAt: 3, FinishedAt: 9, ExitCode: 2}, &status{State: exited, StartedAt: 3, FinishedAt: 9, ExitCode: 2}},
		"over too soon":    {&status{State: exited, StartedAt: 9, FinishedAt: 3, ExitCode: 2}, &status{State: exited, StartedAt: 3, FinishedAt: 3, ExitCode: 2}},
		"never started":    {&status{State: exited, FinishedAt: 3, ExitCode: 128}, &status{State: exited, FinishedAt: 3, ExitCode: 128}},
		"without a start":  {&status{State: exited, StartedAt: never, FinishedAt: 3, ExitCode: 137}, &status{State: exited, FinishedAt: 3, ExitCode: 137}},
		"without an end":   {&status{State: exited, StartedAt: 9, FinishedAt: never, ExitCode: -1}, &status{State: exited, StartedAt: 9, ExitCode: -1}},
		"start isn't told": {&status{State: running, StartedAt: never}, &status{State: running}},
		"no end is known":  {&status{State: exited, StartedAt: 9}, &status{State: exited, StartedAt: 9}},
		"running":          {&status{State: running, StartedAt: 9}, &status{State: running, StartedAt: 9}},
	} {
		t.Run(name, func(t *testing.T) {
			amend(tc.said)
			if diff := cmp.Diff(tc.want, tc.said, protocmp.Transform()); diff != "" {
				t.Error(diff)
			}
		})
	}
}
