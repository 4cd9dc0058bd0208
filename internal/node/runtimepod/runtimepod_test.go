package runtimepod

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

var begin = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

func TestAddLost(t *testing.T) {
	ended := v1.ContainerState{Terminated: &v1.ContainerStateTerminated{
		ExitCode: 3, Reason: "Error", ContainerID: "errand://x", StartedAt: metav1.NewTime(begin), FinishedAt: metav1.NewTime(begin.Add(time.Minute)),
	}}
	running := v1.ContainerState{Running: &v1.ContainerStateRunning{StartedAt: metav1.NewTime(begin)}}
	waiting := v1.ContainerState{Waiting: &v1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}
	known := &Container{ID: "x", Name: "c", State: Running, CreatedAt: begin}
	younger := &Container{ID: "y", Name: "c", State: Running, RestartCount: 1, CreatedAt: begin.Add(time.Hour)}
	for name, c := range map[string]struct {
		status v1.ContainerStatus
		known  []*Container
		want   []Container // of Runs("c"): ID, State, ExitCode, Reason, RestartCount
	}{
		"never ran":                  {v1.ContainerStatus{State: v1.ContainerState{Waiting: &v1.ContainerStateWaiting{}}}, nil, nil},
		"ran":                        {v1.ContainerStatus{State: running, ContainerID: "errand://x"}, nil, []Container{{ID: "x", State: Exited, ExitCode: 137, Reason: ReasonStatusUnknown}}},
		"ended":                      {v1.ContainerStatus{State: ended, ContainerID: "errand://x", RestartCount: 2}, nil, []Container{{ID: "x", State: Exited, ExitCode: 3, Reason: "Error", RestartCount: 2}}},
		"backing off":                {v1.ContainerStatus{State: waiting, LastTerminationState: ended, ContainerID: "errand://x", RestartCount: 1}, nil, []Container{{ID: "x", State: Exited, ExitCode: 3, Reason: "Error", RestartCount: 1}}},
		"there":                      {v1.ContainerStatus{State: running, ContainerID: "errand://x"}, []*Container{known}, []Container{{ID: "x", State: Running}}},
		"replaced, the old one lost": {v1.ContainerStatus{State: running, ContainerID: "errand://x"}, []*Container{younger}, []Container{{ID: "y", State: Running, RestartCount: 1}, {ID: "x", State: Exited, ExitCode: 137, Reason: ReasonStatusUnknown}}},
		"never ran, given up":        {v1.ContainerStatus{State: v1.ContainerState{Terminated: &v1.ContainerStateTerminated{ExitCode: 137}}}, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			c.status.Name = "c"
			p := &Pod{Containers: c.known}
			p.AddLost(c.status)
			var got []Container
			for _, r := range p.Runs("c") {
				got = append(got, Container{ID: r.ID, State: r.State, ExitCode: r.ExitCode, Reason: r.Reason, RestartCount: r.RestartCount})
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What is written on a container can be read from it.
func TestLabels(t *testing.T) {
	grace := int64(5)
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: "u"}, Spec: v1.PodSpec{TerminationGracePeriodSeconds: &grace}}
	spec := &v1.Container{Name: "c", Image: "img"}
	got := FromContainer(&runtimeapi.ContainerStatus{
		Id: "x", State: runtimeapi.ContainerState_CONTAINER_EXITED, ExitCode: 4, Reason: "Error", StartedAt: 5, FinishedAt: 6,
		Image: &runtimeapi.ImageSpec{Image: "sha256:1", UserSpecifiedImage: "img"}, ImageRef: "ref",
		Labels: ContainerLabels(pod, spec), Annotations: ContainerAnnotations(pod, spec, 7, 2),
		User: &runtimeapi.ContainerUser{Linux: &runtimeapi.LinuxContainerUser{Uid: 8}},
	}, "s")
	want := &Container{
		ID: "x", Name: "c", SandboxID: "s", State: Exited, RestartCount: 7, Round: 2, Definition: Definition(spec), Image: "img", ImageRef: "ref",
		StartedAt: time.Unix(0, 5), FinishedAt: time.Unix(0, 6), ExitCode: 4, Reason: "Error",
		User: &v1.ContainerUser{Linux: &v1.LinuxContainerUser{UID: 8}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if UIDOf(ContainerLabels(pod, spec)) != "u" || UIDOf(PodLabels(pod)) != "u" {
		t.Error("UIDOf")
	}
	other := *spec
	other.Image = "img:2"
	if Definition(spec) == Definition(&other) {
		t.Error("another image, the same fingerprint")
	}
}

// A sandbox tells its pod's Job, whatever the pod's own annotations say.
func TestJob(t *testing.T) {
	controller := func(version, kind string, controls bool) []metav1.OwnerReference {
		return []metav1.OwnerReference{{APIVersion: version, Kind: kind, Name: "j", UID: "1-2-3", Controller: &controls}}
	}
	for name, tc := range map[string]struct {
		owners      []metav1.OwnerReference
		annotations map[string]string
		want        Job
	}{
		"a Job's":                  {controller("batch/v1", "Job", true), nil, Job{"j", "1-2-3"}},
		"one with annotations":     {controller("batch/v1", "Job", true), map[string]string{"a": "b", annotationJob: "4/other"}, Job{"j", "1-2-3"}},
		"nobody's":                 {nil, map[string]string{"a": "b"}, Job{}},
		"one that says it is":      {nil, map[string]string{annotationJob: "4/other"}, Job{}},
		"one that a Job only owns": {controller("batch/v1", "Job", false), nil, Job{}},
		"another kind's":           {controller("apps/v1", "ReplicaSet", true), nil, Job{}},
		"another group's Job":      {controller("batchy.example.com/v1", "Job", true), nil, Job{}},
	} {
		t.Run(name, func(t *testing.T) {
			pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{OwnerReferences: tc.owners, Annotations: tc.annotations}}
			annotations := PodAnnotations(pod)
			if got := JobFrom(annotations); got != tc.want || JobOf(pod) != tc.want {
				t.Errorf("the sandbox tells %+v, the pod %+v, want %+v", got, JobOf(pod), tc.want)
			}
			if annotations["a"] != tc.annotations["a"] {
				t.Errorf("the pod's annotations became %v", annotations)
			}
		})
	}
}

func TestSort(t *testing.T) {
	p := &Pod{
		Sandboxes:  []Sandbox{{ID: "1", Attempt: 1}, {ID: "2", Attempt: 2}},
		Containers: []*Container{{ID: "a", Name: "c", CreatedAt: begin, State: Exited}, {ID: "b", Name: "c", CreatedAt: begin.Add(1), State: Created}},
	}
	p.Sort()
	if p.Sandbox().ID != "2" || p.Containers[0].ID != "b" || p.Latest("c").ID != "a" {
		t.Errorf("%+v", p)
	}
}

// A clock that was set back doesn't make an old run the latest.
func TestSortAfterClockWasSetBack(t *testing.T) {
	p := &Pod{
		Sandboxes: []Sandbox{{ID: "1", CreatedAt: begin}, {ID: "2", Attempt: 1, CreatedAt: begin.Add(-time.Hour)}},
		Containers: []*Container{
			{ID: "a", Name: "c", State: Exited, CreatedAt: begin},
			{ID: "b", Name: "c", State: Exited, RestartCount: 1, CreatedAt: begin.Add(-time.Hour)},
			{ID: "d", Name: "c", State: Running, RestartCount: 2, CreatedAt: begin.Add(-time.Minute)},
		},
	}
	p.Sort()
	var runs []string
	for _, c := range p.Runs("c") {
		runs = append(runs, c.ID)
	}
	if diff := cmp.Diff([]string{"d", "b", "a"}, runs); diff != "" || p.Latest("c").ID != "d" || p.Sandbox().ID != "2" {
		t.Errorf("%s%+v", diff, p)
	}
}

// Only running containers can be hidden, and the pod itself stays as it is.
func TestWithout(t *testing.T) {
	p := &Pod{Containers: []*Container{{ID: "a", State: Running}, {ID: "b", State: Exited}, {ID: "c", State: Running}}}
	shown := p.Without(func(c *Container) bool { return c.ID != "c" })
	var ids []string
	for _, c := range shown.Containers {
		ids = append(ids, c.ID)
	}
	if diff := cmp.Diff([]string{"b", "c"}, ids); diff != "" || len(p.Containers) != 3 || p.Containers[0].ID != "a" {
		t.Errorf("%s%+v", diff, p)
	}
}
