package cri

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// crowd is a runtime that knows n pods, all dead but the first, each with one
// container.
func crowd(n int) *Service {
	s := &Service{
		sandboxes: map[string]*sandbox{}, containers: map[string]*container{},
		podSandboxes: byPod[*sandbox]{}, podContainers: byPod[*container]{},
	}
	for i := range n {
		labels := map[string]string{podLabel: fmt.Sprint("uid-", i), "app": "x"}
		at := time.Unix(int64(i), 0)
		sb := &sandbox{
			id: fmt.Sprintf("s%07d", i), createdAt: at, phase: sandboxStopped,
			config: &runtimeapi.PodSandboxConfig{Labels: labels}, members: map[string]*container{},
		}
		c := &container{
			id: fmt.Sprintf("c%07d", i), sandbox: sb, createdAt: at, phase: containerExited,
			config: &runtimeapi.ContainerConfig{Labels: labels},
		}
		if i == 0 {
			sb.phase, c.phase = sandboxReady, containerRunning
		}
		s.addSandbox(sb)
		s.addContainer(c)
	}
	return s
}

func ids[T interface{ GetId() string }](all []T) []string {
	out := []string{}
	for _, x := range all {
		out = append(out, x.GetId())
	}
	return out
}

func TestListsAreFiltered(t *testing.T) {
	s := crowd(3)
	pod := func(i int) map[string]string { return map[string]string{podLabel: fmt.Sprint("uid-", i)} }
	both := pod(1)
	both["app"] = "y"
	ready := &runtimeapi.PodSandboxStateValue{State: runtimeapi.PodSandboxState_SANDBOX_READY}
	running := &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING}
	for name, tc := range map[string]struct {
		sandboxes  *runtimeapi.PodSandboxFilter
		containers *runtimeapi.ContainerFilter
		want       []int
	}{
		"nothing": {nil, nil, []int{0, 1, 2}},
		"pod":     {&runtimeapi.PodSandboxFilter{LabelSelector: pod(1)}, &runtimeapi.ContainerFilter{LabelSelector: pod(1)}, []int{1}},
		"no pod":  {&runtimeapi.PodSandboxFilter{LabelSelector: pod(9)}, &runtimeapi.ContainerFilter{LabelSelector: pod(9)}, nil},
		"label": {
			&runtimeapi.PodSandboxFilter{LabelSelector: map[string]string{"app": "x"}},
			&runtimeapi.ContainerFilter{LabelSelector: map[string]string{"app": "x"}}, []int{0, 1, 2},
		},
		"pod, not label": {&runtimeapi.PodSandboxFilter{LabelSelector: both}, &runtimeapi.ContainerFilter{LabelSelector: both}, nil},
		"state":          {&runtimeapi.PodSandboxFilter{State: ready}, &runtimeapi.ContainerFilter{State: running}, []int{0}},
		"ID":             {&runtimeapi.PodSandboxFilter{Id: "s0000002"}, &runtimeapi.ContainerFilter{Id: "c0000002"}, []int{2}},
		"beginning":      {&runtimeapi.PodSandboxFilter{Id: "s000"}, &runtimeapi.ContainerFilter{PodSandboxId: "s000"}, []int{0, 1, 2}},
		"ID, not pod": {
			&runtimeapi.PodSandboxFilter{Id: "s0000002", LabelSelector: pod(1)},
			&runtimeapi.ContainerFilter{PodSandboxId: "s0000002", LabelSelector: pod(1)}, nil,
		},
	} {
		var wantS, wantC []string
		for _, i := range tc.want {
			wantS, wantC = append(wantS, fmt.Sprintf("s%07d", i)), append(wantC, fmt.Sprintf("c%07d", i))
		}
		sandboxes, _ := s.ListPodSandbox(t.Context(), tc.sandboxes)
		containers, _ := s.ListContainers(t.Context(), tc.containers)
		if got := ids(sandboxes); !slices.Equal(got, wantS) {
			t.Errorf("%s: sandboxes %v, want %v", name, got, wantS)
		}
		if got := ids(containers); !slices.Equal(got, wantC) {
			t.Errorf("%s: containers %v, want %v", name, got, wantC)
		}
	}
}

func TestIndexForgetsWhatIsRemoved(t *testing.T) {
	s := crowd(2)
	for _, c := range s.containersOf("s0000001") {
		s.dropContainer(c)
		s.dropSandbox(c.sandbox)
	}
	if len(s.podSandboxes) != 1 || len(s.podContainers) != 1 {
		t.Errorf("left %v, %v", s.podSandboxes, s.podContainers)
	}
}

// listPod lists what belongs to one pod, as the node does.
func listPod(s *Service) {
	labels := map[string]string{podLabel: "uid-0"}
	_, _ = s.ListPodSandbox(context.Background(), &runtimeapi.PodSandboxFilter{LabelSelector: labels})
	_, _ = s.ListContainers(context.Background(), &runtimeapi.ContainerFilter{LabelSelector: labels})
	_, _ = s.ListContainers(context.Background(), &runtimeapi.ContainerFilter{PodSandboxId: "s0000000"})
}

// How many other pods have finished is of no matter to a pod that runs.
func TestDeadPodsAreNotLookedAt(t *testing.T) {
	const dead = 100
	s := crowd(1 + dead)
	// Any look takes the lock, which is held here.
	for i := range dead {
		s.containers[fmt.Sprintf("c%07d", 1+i)].mu.Lock()
		s.sandboxes[fmt.Sprintf("s%07d", 1+i)].mu.Lock()
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		listPod(s)
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("a pod's list waits for the locks of other pods")
	}
}

func BenchmarkListOfOnePod(b *testing.B) {
	var few float64
	for _, n := range []int{10, 10_000} {
		s := crowd(n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				listPod(s)
			}
			each := float64(b.Elapsed().Nanoseconds()) / float64(b.N)
			if n == 10 {
				few = each
			}
			b.ReportMetric(each/few, "times-10-pods")
		})
	}
}
