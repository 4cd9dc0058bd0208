package jobs

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestReadIndexFailures(t *testing.T) {
	const counted, ignored = batchv1.JobIndexFailureCountAnnotation, batchv1.JobIndexIgnoredFailureCountAnnotation
	for _, tc := range []struct {
		annotations map[string]string
		want        indexFailures
	}{
		{nil, indexFailures{}},
		{map[string]string{counted: "2"}, indexFailures{Counted: 2}},
		{map[string]string{counted: "2", ignored: "1"}, indexFailures{Counted: 2, Ignored: 1}},
		{map[string]string{counted: "-1", ignored: "x"}, indexFailures{}},
		{map[string]string{counted: "9999999999", ignored: "3"}, indexFailures{Ignored: 3}},
	} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Annotations: tc.annotations}}
		if got := readIndexFailures(pod); got != tc.want {
			t.Errorf("%v: %+v", tc.annotations, got)
		}
	}
}

// The number of failures is handed on from pod to pod; one that is 0 for want of an ignored failure isn't written.
func TestIndexFailuresHandedOn(t *testing.T) {
	var f indexFailures
	for _, step := range []struct {
		v    verdict
		want map[string]string
	}{
		{verdict{}, map[string]string{batchv1.JobIndexFailureCountAnnotation: "1"}},
		{verdict{Action: countIt}, map[string]string{batchv1.JobIndexFailureCountAnnotation: "2"}},
		{verdict{Action: ignoreIt}, map[string]string{batchv1.JobIndexFailureCountAnnotation: "2", batchv1.JobIndexIgnoredFailureCountAnnotation: "1"}},
	} {
		f = f.after(step.v)
		pod := &corev1.Pod{}
		f.write(pod)
		if diff := cmp.Diff(step.want, pod.Annotations); diff != "" {
			t.Error(diff)
		}
		if got := readIndexFailures(pod); got != f {
			t.Errorf("wrote %+v, read %+v", f, got)
		}
	}
	if f.total() != 3 {
		t.Errorf("%d in total", f.total())
	}
}

// The annotation is there from the first pod on, and only if the Job limits the failures of an index.
func TestIndexFailureAnnotation(t *testing.T) {
	for _, tc := range []struct {
		job   *jobBuilder
		count string
		is    bool
	}{
		{makeJob("job").indexed(2), "", false},
		{makeJob("job").indexed(2).limitPerIndex(3), "1", true},
	} {
		pod := newPod(tc.job.stored().obj(), "x", creation{Before: indexFailures{Counted: 1}})
		count, is := pod.Annotations[batchv1.JobIndexFailureCountAnnotation]
		if count != tc.count || is != tc.is {
			t.Errorf("annotations %v", pod.Annotations)
		}
	}
	if got := newPod(makeJob("job").indexed(2).limitPerIndex(3).stored().obj(), "x", creation{}).Annotations[batchv1.JobIndexFailureCountAnnotation]; got != "0" {
		t.Errorf("the first pod's annotation is %q", got)
	}
}

func TestFailsIndex(t *testing.T) {
	for _, tc := range []struct {
		name   string
		job    *jobBuilder
		before indexFailures
		v      verdict
		want   bool
	}{
		{"no limit per index", makeJob("job").indexed(2), indexFailures{Counted: 9}, verdict{}, false},
		{"FailIndex without a limit", makeJob("job").indexed(2), indexFailures{}, verdict{Action: failIndex}, false},
		{"below the limit", makeJob("job").indexed(2).limitPerIndex(2), indexFailures{Counted: 1}, verdict{}, false},
		{"over the limit", makeJob("job").indexed(2).limitPerIndex(2), indexFailures{Counted: 2}, verdict{}, true},
		{"limit 0", makeJob("job").indexed(2).limitPerIndex(0), indexFailures{}, verdict{}, true},
		{"Count", makeJob("job").indexed(2).limitPerIndex(0), indexFailures{}, verdict{Action: countIt}, true},
		{"an ignored failure", makeJob("job").indexed(2).limitPerIndex(0), indexFailures{Counted: 5}, verdict{Action: ignoreIt}, false},
		{"ignored ones before", makeJob("job").indexed(2).limitPerIndex(1), indexFailures{Ignored: 7}, verdict{}, false},
		{"FailIndex, the first time", makeJob("job").indexed(2).limitPerIndex(5), indexFailures{}, verdict{Action: failIndex}, true},
	} {
		if got := failsIndex(tc.job.obj(), tc.before, tc.v); got != tc.want {
			t.Errorf("%s: %v", tc.name, got)
		}
	}
}

func TestTooManyIndexesFailed(t *testing.T) {
	for _, tc := range []struct {
		name         string
		job          *jobBuilder
		done, failed string
		// reason is "" if the Job goes on.
		reason string
	}{
		{"none", makeJob("job").indexed(4).limitPerIndex(0), "0-3", "", ""},
		{"one, the others aren't done", makeJob("job").indexed(4).limitPerIndex(0), "0,1", "3", ""},
		{"one, all others done", makeJob("job").indexed(4).limitPerIndex(0), "0-2", "3", batchv1.JobReasonFailedIndexes},
		{"all", makeJob("job").indexed(4).limitPerIndex(0), "", "0-3", batchv1.JobReasonFailedIndexes},
		{"as many as may fail", makeJob("job").indexed(4).limitPerIndex(0).maxFailedIndexes(2), "", "0,1", ""},
		{"more than may fail", makeJob("job").indexed(4).limitPerIndex(0).maxFailedIndexes(1), "", "0,1", batchv1.JobReasonMaxFailedIndexesExceeded},
		{"none may fail", makeJob("job").indexed(4).limitPerIndex(0).maxFailedIndexes(0), "", "2", batchv1.JobReasonMaxFailedIndexesExceeded},
		{"no more than may fail, but done", makeJob("job").indexed(4).limitPerIndex(0).maxFailedIndexes(2), "0,1", "2,3", batchv1.JobReasonFailedIndexes},
	} {
		job := tc.job.stored().obj()
		d := newDraft(job, viewOf(job), epoch, testLimits)
		d.doneIndexes, d.failedIndexes = parseIntervals(tc.done, 4), parseIntervals(tc.failed, 4)
		var reason string
		if c := d.tooManyIndexesFailed(); c != nil {
			if reason = c.Reason; c.Type != batchv1.JobFailureTarget {
				t.Errorf("%s: %s", tc.name, c.Type)
			}
		}
		if reason != tc.reason {
			t.Errorf("%s: %q, want %q", tc.name, reason, tc.reason)
		}
	}
}

// How long an index has to wait: by its own failures, ignored ones too, from the last of them.
func TestIndexHistory(t *testing.T) {
	failedPod := func(name string, counted int32, at time.Duration) *corev1.Pod {
		p := makePod(name).ended(corev1.PodFailed, epoch.Add(at)).obj()
		p.Spec.Hostname = "job-1"
		indexFailures{Counted: counted}.write(p)
		return p
	}
	for _, tc := range []struct {
		name  string
		job   *jobBuilder
		pods  []*corev1.Pod
		index int32
		want  indexFailures
		wait  time.Duration
	}{
		{"nothing failed", makeJob("job").indexed(3).limitPerIndex(9), nil, 1, indexFailures{}, 0},
		{"another index", makeJob("job").indexed(3).limitPerIndex(9), []*corev1.Pod{failedPod("a", 0, 0)}, 0, indexFailures{}, 0},
		{"the first failure", makeJob("job").indexed(3).limitPerIndex(9), []*corev1.Pod{failedPod("a", 0, 0)}, 1, indexFailures{Counted: 1}, 7 * time.Second},
		{"the third", makeJob("job").indexed(3).limitPerIndex(9), []*corev1.Pod{failedPod("a", 2, 0)}, 1, indexFailures{Counted: 3}, 37 * time.Second},
		{
			"the last counts", makeJob("job").indexed(3).limitPerIndex(9), []*corev1.Pod{failedPod("b", 1, 2*time.Second), failedPod("a", 0, time.Second)},
			1, indexFailures{Counted: 2}, 19 * time.Second,
		},
		{
			"ignored, but it delays", makeJob("job").indexed(3).limitPerIndex(9).failureRules(onExit(ignoreIt, 0), onCondition(ignoreIt, corev1.PodReady)),
			[]*corev1.Pod{func() *corev1.Pod {
				p := failedPod("a", 1, 0)
				setReady(p, corev1.ConditionTrue, metav1.Time{})
				return p
			}()},
			1, indexFailures{Counted: 1, Ignored: 1}, 17 * time.Second,
		},
		{"no limit per index", makeJob("job").indexed(3), []*corev1.Pod{failedPod("a", 0, 0)}, 1, indexFailures{}, 0},
	} {
		job := tc.job.stored().started(epoch).obj()
		d := newDraft(job, viewOf(job, tc.pods...), epoch.Add(3*time.Second), testLimits)
		got, wait := d.indexHistory(tc.index)
		if got != tc.want || wait != tc.wait {
			t.Errorf("%s: %+v, wait %v, want %+v, %v", tc.name, got, wait, tc.want, tc.wait)
		}
	}
}
