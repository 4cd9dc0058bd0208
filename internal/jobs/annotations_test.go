package jobs

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"errand.dev/errand/internal/jobannotations"
)

func (b *jobBuilder) annotated(name, value string) *jobBuilder {
	metav1.SetMetaDataAnnotation(&b.job.ObjectMeta, name, value)
	return b
}

func TestWishedLimits(t *testing.T) {
	for _, tc := range []struct {
		base, most string
		want       limits
	}{
		{"", "", testLimits},
		{"1s", "", limits{time.Second, 10 * time.Minute}},
		{"0s", "", limits{0, 10 * time.Minute}},
		{"1h", "", limits{time.Hour, time.Hour}},
		{"", "5s", limits{5 * time.Second, 5 * time.Second}},
		{"1s", "4s", limits{time.Second, 4 * time.Second}},
		{"8s", "4s", limits{8 * time.Second, 8 * time.Second}},
		{"soon", "4", testLimits},
	} {
		job := makeJob("job")
		if tc.base != "" {
			job.annotated(jobannotations.PodFailureBackoff, tc.base)
		}
		if tc.most != "" {
			job.annotated(jobannotations.MaxPodFailureBackoff, tc.most)
		}
		if got := testLimits.wishedBy(job.obj()); got != tc.want {
			t.Errorf("%q, at most %q: %v, want %v", tc.base, tc.most, got, tc.want)
		}
	}
}

// A Job may have a back-off delay of its own; one beside it keeps the operator's.
func TestKK94012_BackoffDelayOfOnesOwn(t *testing.T) {
	w := newWorld(t)
	own := w.create(makeJob("own").annotated(jobannotations.PodFailureBackoff, "1s").annotated(jobannotations.MaxPodFailureBackoff, "3s").obj())
	other := w.create(makeJob("other").obj())
	var delays []time.Duration
	for range 4 {
		w.settle()
		w.endAll(own, corev1.PodFailed)
		delays = append(delays, w.nextPodIn(own))
	}
	if diff := cmp.Diff([]time.Duration{time.Second, 2 * time.Second, 3 * time.Second, 3 * time.Second}, delays); diff != "" {
		t.Error(diff)
	}
	w.endAll(other, corev1.PodFailed)
	if d := w.nextPodIn(other); d != DefaultPodFailureBackoff {
		t.Errorf("the other Job waits for %s", d)
	}
}

// What a cluster's API server lets pass and means nothing is said once, where the user looks.
func TestInvalidAnnotationIsSaid(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").completions(2).annotated(jobannotations.PodFailureBackoff, "soon").obj())
	w.settle()
	w.endAll(job, corev1.PodFailed)
	if d := w.nextPodIn(job); d != DefaultPodFailureBackoff {
		t.Errorf("it waits for %s", d)
	}
	said := 0
	for _, e := range w.events.lines {
		if strings.Contains(e, "InvalidAnnotation") {
			said++
			if !strings.Contains(e, jobannotations.PodFailureBackoff) || !strings.Contains(e, "such as 500ms") {
				t.Errorf("it says %s", e)
			}
		}
	}
	if said != 1 {
		t.Errorf("it says so %d times: %v", said, w.events.lines)
	}
}

// imageless makes a pod wait for an image that can't be pulled.
func (w *world) imageless(pod *corev1.Pod, reason, message string) {
	w.api.setPod(pod.Namespace, pod.Name, func(p *corev1.Pod) {
		now := w.api.now()
		p.Spec.NodeName = "node"
		if p.Status.StartTime == nil {
			p.Status.StartTime = &now
		}
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", State: corev1.ContainerState{
			Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message},
		}}}
	})
}

// A Job that says so fails when its image can't be pulled for too long, after a restart of the engine, too, and by the terminal protocol.
func TestKK122300_KK113211_ImageThatCantBePulled(t *testing.T) {
	for _, restart := range []bool{false, true} {
		w := newWorld(t)
		job := w.create(makeJob("job").completions(2).parallelism(2).annotated(jobannotations.ImagePullDeadline, "5m").obj())
		w.settle()
		pods := w.active(job)
		w.running(pods[1])
		w.imageless(pods[0], "ErrImagePull", "not found")
		w.pass(4 * time.Minute)
		w.imageless(pods[0], "ImagePullBackOff", `Back-off pulling image "nowhere"`)
		if restart {
			w.boot(0, 0)
		}
		w.pass(59 * time.Second)
		if got := w.protocol(); len(got) > 0 {
			t.Fatalf("early: %v", got)
		}
		w.pass(time.Second)
		w.endDeleted()
		if diff := cmp.Diff([]string{"FailureTarget ImagePullFailed", "pods deleted", "Failed ImagePullFailed"}, w.protocol()); diff != "" {
			t.Errorf("restart %t: %s", restart, diff)
		}
		c := findCondition(w.job("job").Status.Conditions, batchv1.JobFailed)
		if c == nil || !strings.Contains(c.Message, pods[0].Name) || !strings.Contains(c.Message, `Back-off pulling image "nowhere"`) {
			t.Errorf("restart %t: %+v", restart, c)
		}
		w.untracked()
	}
}

// Without the annotation, and as long as the image may yet come, a Job waits as Kubernetes has it.
func TestJobsWaitForImages(t *testing.T) {
	for name, tc := range map[string]struct {
		deadline, reason string
		comes            bool
	}{
		"without a deadline":        {reason: "ImagePullBackOff"},
		"while it is being pulled":  {deadline: "1m", reason: "ContainerCreating"},
		"an image that has come":    {deadline: "1m", reason: "ImagePullBackOff", comes: true},
		"a deadline that is no one": {deadline: "1", reason: "ImagePullBackOff"},
	} {
		w := newWorld(t)
		b := makeJob("job")
		if tc.deadline != "" {
			b.annotated(jobannotations.ImagePullDeadline, tc.deadline)
		}
		job := w.create(b.obj())
		w.settle()
		pod := w.active(job)[0]
		w.imageless(pod, tc.reason, "no image yet")
		w.pass(30 * time.Second)
		if tc.comes {
			w.api.setPod(pod.Namespace, pod.Name, func(p *corev1.Pod) { p.Status.ContainerStatuses = nil })
			w.running(pod)
		}
		w.pass(time.Hour)
		if got := w.protocol(); len(got) > 0 {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestReadPull(t *testing.T) {
	waiting := func(name, reason, message string) corev1.ContainerStatus {
		return corev1.ContainerStatus{Name: name, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}}
	}
	later := metav1.NewTime(epoch.Add(time.Minute))
	for name, tc := range map[string]struct {
		init, main []corev1.ContainerStatus
		started    *metav1.Time
		want       failingPull
	}{
		"nothing yet":         {},
		"still comes":         {main: []corev1.ContainerStatus{waiting("main", "ContainerCreating", "")}},
		"crashes":             {main: []corev1.ContainerStatus{waiting("main", "CrashLoopBackOff", "back-off")}},
		"from its creation":   {main: []corev1.ContainerStatus{waiting("main", "InvalidImageName", "")}, want: failingPull{epoch, "container main of pod p can't get its image: InvalidImageName"}},
		"from its start":      {main: []corev1.ContainerStatus{waiting("main", "ErrImageNeverPull", "absent")}, started: &later, want: failingPull{later.Time, "container main of pod p can't get its image: absent"}},
		"an init container's": {init: []corev1.ContainerStatus{waiting("first", "RegistryUnavailable", "away")}, main: []corev1.ContainerStatus{waiting("main", "PodInitializing", "")}, want: failingPull{epoch, "container first of pod p can't get its image: away"}},
		"the second of two's": {main: []corev1.ContainerStatus{{Name: "a"}, waiting("b", "SignatureValidationFailed", "unsigned")}, want: failingPull{epoch, "container b of pod p can't get its image: unsigned"}},
	} {
		pod := makePod("p").obj()
		pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses, pod.Status.StartTime = tc.init, tc.main, tc.started
		if got := readPull(pod); got != tc.want {
			t.Errorf("%s: %+v, want %+v", name, got, tc.want)
		}
	}
}

// A Job may be kept for another time when it has failed than when it is complete.
func TestTTLByOutcome(t *testing.T) {
	for _, tc := range []struct {
		name             string
		success, failure string
		kind             batchv1.JobConditionType
		left             time.Duration
		limited          bool
	}{
		{"complete", "5", "never", batchv1.JobComplete, 5 * time.Second, true},
		{"failed", "5", "never", batchv1.JobFailed, 0, false},
		{"failed, later", "0", "3600", batchv1.JobFailed, time.Hour, true},
		{"the spec's where only the other is said", "", "never", batchv1.JobComplete, 100 * time.Second, true},
		{"the spec's where it means nothing", "soon", "soon", batchv1.JobFailed, 100 * time.Second, true},
	} {
		b := makeJob("").ttl(100)
		if tc.success != "" {
			b.annotated(jobannotations.TTLAfterSuccess, tc.success)
		}
		if tc.failure != "" {
			b.annotated(jobannotations.TTLAfterFailure, tc.failure)
		}
		job := b.status(func(s *batchv1.JobStatus) { s.Conditions = []batchv1.JobCondition{cond(tc.kind, "", "")} }).obj()
		left, _, limited := ttlLeft(job, epoch, -1)
		if left != tc.left || limited != tc.limited {
			t.Errorf("%s: %v %v, want %v %v", tc.name, left, limited, tc.left, tc.limited)
		}
	}
}

// The annotation alone has a Job deleted, without spec.ttlSecondsAfterFinished.
func TestTTLByAnnotationAlone(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").annotated(jobannotations.TTLAfterSuccess, "60").obj())
	w.settle()
	w.endAll(job, corev1.PodSucceeded)
	w.pass(59 * time.Second)
	if j := w.job("job"); j.DeletionTimestamp != nil {
		t.Fatal("deleted early")
	}
	w.pass(time.Second)
	if j := w.api.job("default", "job"); j != nil && j.DeletionTimestamp == nil {
		t.Error("not deleted")
	}
}
