package jobrun

import (
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func TestPodHoldUp(t *testing.T) {
	job := makeJob("a")
	unschedulable := func(p *corev1.Pod) {
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "0/1 nodes are available"}}
	}
	withInit := func(policy *corev1.ContainerRestartPolicy) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Name: "before", RestartPolicy: policy}}
			s := running()
			s.Name = "before"
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{s}
		}
	}
	pulling := event("Normal", "Pulling", `Pulling image "busybox"`, 2)
	for name, tc := range map[string]struct {
		edit   []func(*corev1.Pod)
		events []*corev1.Event
		want   string
	}{
		"no node":       {nil, nil, "waits for a node"},
		"a scheduler":   {[]func(*corev1.Pod){func(p *corev1.Pod) { p.Spec.SchedulerName = "volcano" }}, nil, `waits for a node from the scheduler "volcano", which its spec.schedulerName names`},
		"unschedulable": {[]func(*corev1.Pod){unschedulable}, nil, "waits for a node: 0/1 nodes are available"},
		"bound":         {[]func(*corev1.Pod){onNode}, nil, "waits for its node node to start it"},
		"being pulled": {[]func(*corev1.Pod){onNode, container(waiting("ContainerCreating", ""))}, []*corev1.Event{pulling, event("Normal", "Scheduled", "Assigned", 1)},
			`waits for its image: Pulling image "busybox"`},
		"a volume": {[]func(*corev1.Pod){onNode, container(waiting("ContainerCreating", ""))}, []*corev1.Event{event("Warning", "FailedMount", "no such secret", 1)},
			"FailedMount: no such secret"},
		"a volume, within a second": {[]func(*corev1.Pod){onNode}, []*corev1.Event{written("9", pulling), written("10", event("Warning", "FailedMount", "no such secret", 2)), written("8", event("Normal", "Scheduled", "Assigned", 2))},
			"FailedMount: no such secret"},
		"no image": {[]func(*corev1.Pod){onNode, container(waiting("ErrImagePull", "not found"))}, nil, "can't get the image busybox, which is tried again: not found"},
		"no image, in the pause between tries": {[]func(*corev1.Pod){onNode, container(waiting("ImagePullBackOff", `Back-off pulling image "busybox": ErrImagePull: not found`))}, nil,
			"can't get the image busybox, which is tried again: not found"},
		"no image, as a node says it": {[]func(*corev1.Pod){onNode, container(waiting("ImagePullBackOff", `Back-off pulling image "busybox": ErrImagePull: rpc error: code = NotFound desc = not found`))}, nil,
			"can't get the image busybox, which is tried again: not found"},
		"no image by its name": {[]func(*corev1.Pod){onNode, container(waiting("InvalidImageName", "bad"))}, nil,
			`can't get the image "busybox", and never will by that name: correct it in the Job's manifest, and run that anew: InvalidImageName: bad`},
		"no image here": {[]func(*corev1.Pod){onNode, container(waiting("ErrImageNeverPull", "absent"))}, nil, "can't get the image busybox: ErrImageNeverPull: absent"},
		"restarts": {[]func(*corev1.Pod){onNode, phase(corev1.PodRunning), container(restarted(waiting("CrashLoopBackOff", "back-off"), 0, 4, 1))}, nil,
			"waits to start container main again, which ended with exit code 4"},
		"a missing Secret":       {[]func(*corev1.Pod){onNode, container(waiting("CreateContainerConfigError", `secret "s" not found`))}, nil, `container main doesn't start: CreateContainerConfigError: secret "s" not found`},
		"runs":                   {[]func(*corev1.Pod){onNode, phase(corev1.PodRunning), container(running())}, nil, ""},
		"an init container runs": {[]func(*corev1.Pod){onNode, withInit(nil), container(waiting("PodInitializing", ""))}, nil, ""},
		"only a sidecar runs": {[]func(*corev1.Pod){onNode, withInit(ptr.To(corev1.ContainerRestartPolicyAlways)), container(waiting("PodInitializing", ""))}, []*corev1.Event{pulling},
			`waits for its image: Pulling image "busybox"`},
		"ended":         {[]func(*corev1.Pod){onNode, phase(corev1.PodFailed), container(waiting("ErrImagePull", "x"))}, nil, ""},
		"being deleted": {[]func(*corev1.Pod){deleted}, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := podHoldUp(makePod(job, "p", tc.edit...), tc.events); got != tc.want {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
}

func TestJobHoldUp(t *testing.T) {
	failed := func(n int32) func(*batchv1.Job) { return func(j *batchv1.Job) { j.Status.Failed = n } }
	since := "is being deleted since " + at(5).Local().Format(time.DateTime)
	refused := event("Warning", "FailedCreate", "exceeded quota", 1)
	for name, tc := range map[string]struct {
		job    *batchv1.Job
		made   bool
		left   int
		events []*corev1.Event
		want   string
	}{
		"no controller":          {makeJob("a"), false, 0, nil, "has no pods yet: no Job controller has made any"},
		"refused":                {makeJob("a"), false, 0, []*corev1.Event{refused}, "FailedCreate: exceeded quota"},
		"refused, and then not":  {makeJob("a"), true, 0, []*corev1.Event{event("Normal", "SuccessfulCreate", "", 2), refused}, "waits for its Job controller: its pods have ended"},
		"pods are at work":       {makeJob("a", failed(1)), true, 1, nil, ""},
		"between tries":          {makeJob("a", failed(2)), true, 0, nil, "waits before it tries again: 2 failed, and its backoffLimit is 6"},
		"no parallelism":         {makeJob("a", func(j *batchv1.Job) { j.Spec.Parallelism = ptr.To[int32](0) }), false, 0, nil, "runs no pods: its parallelism is 0"},
		"suspended is said else": {makeJob("a", func(j *batchv1.Job) { j.Spec.Suspend = ptr.To(true) }), false, 0, nil, ""},
		"about to fail": {makeJob("a", with(batchv1.JobFailureTarget, "DeadlineExceeded", "")), true, 2, nil,
			"is about to end (DeadlineExceeded): it waits for 2 pods to end, which have 30 s for it"},
		"being deleted": {makeJob("a", deletedAt5("x/y")), true, 1, nil, since + ": it waits for a pod to end, which has 30 s for it"},
		"held by finalizers": {makeJob("a", deletedAt5("x/y", metav1.FinalizerDeleteDependents)), true, 0, nil,
			since + ": it waits until the controllers of its finalizers have removed them: x/y, foregroundDeletion (what belongs to it goes first)"},
		"about to be gone":        {makeJob("a", deletedAt5()), true, 0, nil, since},
		"about to end, pods gone": {makeJob("a", with(batchv1.JobFailureTarget, "R", "")), true, 0, nil, "is about to end (R): it waits for its controllers"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := jobHoldUp(tc.job, tc.made, tc.left, tc.events); got != tc.want {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
}
