package jobs

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/utils/ptr"
)

func TestBackoffLimitExceeded(t *testing.T) {
	for _, tc := range []struct {
		name             string
		job              *jobBuilder
		failed, restarts int32
		want             bool
	}{
		{"at the limit", makeJob("").limit(3), 3, 0, false},
		{"over it", makeJob("").limit(3), 4, 0, true},
		{"limit 0", makeJob("").limit(0), 1, 0, true},
		{"no failure at limit 0", makeJob("").limit(0), 0, 0, false},
		{"restarts don't count with Never", makeJob("").limit(3), 0, 9, false},
		{"restarts below the limit", makeJob("").limit(3).onFailure(), 0, 2, false},
		{"restarts at the limit", makeJob("").limit(3).onFailure(), 0, 3, true},
		{"no restart at limit 0", makeJob("").limit(0).onFailure(), 0, 0, false},
		{"one restart at limit 0", makeJob("").limit(0).onFailure(), 0, 1, true},
	} {
		if got := backoffLimitExceeded(tc.job.obj(), tc.failed, tc.restarts); got != tc.want {
			t.Errorf("%s: got %v", tc.name, got)
		}
	}
}

func TestCompletions(t *testing.T) {
	for _, tc := range []struct {
		name              string
		job               *jobBuilder
		succeeded, active int32
		reached           bool
		want              int32
	}{
		{"start", makeJob("").completions(4).parallelism(3), 0, 0, false, 3},
		{"then one", makeJob("").completions(4).parallelism(3), 3, 0, false, 1},
		{"done", makeJob("").completions(4).parallelism(3), 4, 0, true, 0},
		{"more than done", makeJob("").completions(4).parallelism(3), 5, 0, true, 0},
		{"done though one runs", makeJob("").completions(1).parallelism(1), 1, 1, true, 0},
		{"queue", makeJob("").workQueue().parallelism(3), 0, 2, false, 3},
		{"queue with a success", makeJob("").workQueue().parallelism(3), 1, 2, false, 2},
		{"queue done", makeJob("").workQueue().parallelism(3), 1, 0, true, 0},
		{"queue shrunk after a success", makeJob("").workQueue().parallelism(1), 1, 2, false, 2},
	} {
		job := tc.job.obj()
		if got := completionsReached(job, tc.succeeded, tc.active); got != tc.reached {
			t.Errorf("%s: reached %v", tc.name, got)
		}
		if got := wantActive(job, tc.succeeded, 0, tc.active); got != tc.want {
			t.Errorf("%s: want %d active, got %d", tc.name, tc.want, got)
		}
	}
}

func TestBackoffDelay(t *testing.T) {
	fail := func(n int) (h failureHistory) {
		for i := range n {
			h = h.failedAt(types.UID(strings.Repeat("x", i+1)), epoch)
		}
		return h
	}
	for _, tc := range []struct {
		name  string
		h     failureHistory
		after time.Duration
		want  time.Duration
	}{
		{"none", fail(0), 0, 0},
		{"one", fail(1), 0, 10 * time.Second},
		{"one, partly waited", fail(1), 4 * time.Second, 6 * time.Second},
		{"one, waited", fail(1), 10 * time.Second, 0},
		{"two", fail(2), 0, 20 * time.Second},
		{"six", fail(6), 0, 320 * time.Second},
		{"seven reach the most", fail(7), 0, 10 * time.Minute},
		{"very many", fail(40), 0, 10 * time.Minute},
		{"the clock was set back", fail(1), -time.Hour, 10 * time.Second},
		{"reset by a success", fail(3).succeededAt(epoch.Add(time.Second)), 0, 0},
		{"a success before the failures resets nothing", fail(2).succeededAt(epoch.Add(-time.Second)), 0, 20 * time.Second},
		{"failures before a success that was learnt first", failureHistory{}.succeededAt(epoch.Add(time.Second)).failedAt("a", epoch), 0, 0},
	} {
		if got := backoffDelay(tc.h, epoch.Add(tc.after), limits{10 * time.Second, 10 * time.Minute}); got != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
}

// The history doesn't depend on the order in which ends are learnt, nor on learning of one twice.
func TestFailureHistoryCommutes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		type end struct {
			uid types.UID
			at  time.Time
			ok  bool
		}
		var ends []end
		for i := range r.IntN(12) {
			ends = append(ends, end{types.UID(rune('a' + i)), epoch.Add(time.Duration(r.IntN(20)) * time.Second), r.IntN(3) == 0})
		}
		apply := func(order []end) (h failureHistory) {
			for _, e := range order {
				if e.ok {
					h = h.succeededAt(e.at)
				} else {
					h = h.failedAt(e.uid, e.at)
				}
			}
			slices.SortFunc(h.Failures, func(a, b failure) int { return strings.Compare(string(a.UID), string(b.UID)) })
			return h
		}
		want := apply(ends)
		shuffled := append(slices.Clone(ends), ends...)
		r.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		if diff := cmp.Diff(want, apply(shuffled), cmpopts.EquateEmpty()); diff != "" {
			t.Fatal(diff)
		}
	}
}

func TestDeadlineLeft(t *testing.T) {
	if _, limited := deadlineLeft(makeJob("").obj(), epoch, epoch); limited {
		t.Error("a Job without deadline has one")
	}
	if _, limited := deadlineLeft(makeJob("").deadline(5).obj(), time.Time{}, epoch); limited {
		t.Error("a Job that never started has a deadline")
	}
	if left, _ := deadlineLeft(makeJob("").deadline(5).obj(), epoch, epoch.Add(2*time.Second)); left != 3*time.Second {
		t.Errorf("left %v", left)
	}
}

func TestTTLLeft(t *testing.T) {
	done := func(b *jobBuilder, kind batchv1.JobConditionType) *batchv1.Job {
		return b.status(func(s *batchv1.JobStatus) { s.Conditions = []batchv1.JobCondition{cond(kind, "", "")} }).obj()
	}
	for _, tc := range []struct {
		name    string
		job     *batchv1.Job
		now     time.Duration
		watched time.Duration
		left    time.Duration
		limited bool
	}{
		{"no TTL", done(makeJob(""), batchv1.JobComplete), time.Hour, -1, 0, false},
		{"unfinished", makeJob("").ttl(1).obj(), time.Hour, -1, 0, false},
		{"only decided, not final", done(makeJob("").ttl(1), batchv1.JobSuccessCriteriaMet), time.Hour, -1, 0, false},
		{"complete", done(makeJob("").ttl(100), batchv1.JobComplete), 30 * time.Second, -1, 70 * time.Second, true},
		{"failed", done(makeJob("").ttl(100), batchv1.JobFailed), 30 * time.Second, -1, 70 * time.Second, true},
		{"0 is at once", done(makeJob("").ttl(0), batchv1.JobFailed), 0, 0, 0, true},
		{"over", done(makeJob("").ttl(10), batchv1.JobFailed), 30 * time.Second, 30 * time.Second, -20 * time.Second, true},
		{"finished in the future", done(makeJob("").ttl(10), batchv1.JobFailed), -time.Hour, -1, time.Hour + 10*time.Second, true},
		{"the clock was set forward while we watched", done(makeJob("").ttl(100), batchv1.JobComplete), time.Hour, 5 * time.Second, 95 * time.Second, true},
		{"the clock was set back while we watched", done(makeJob("").ttl(100), batchv1.JobComplete), -time.Hour, 200 * time.Second, time.Hour + 100*time.Second, true},
	} {
		left, _, limited := ttlLeft(tc.job, epoch.Add(tc.now), tc.watched)
		if limited != tc.limited || limited && left != tc.left {
			t.Errorf("%s: %v %v, want %v %v", tc.name, left, limited, tc.left, tc.limited)
		}
	}
}

func TestPodNames(t *testing.T) {
	names := podNames{job: "job", uid: "7fffadaa-9b76-4f67-9962-7fbd36b4f6e0"}
	seen := map[string]bool{}
	for slot := range int64(200_000) {
		name := names.at(slot)
		if seen[name] {
			t.Fatalf("slot %d repeats %s", slot, name)
		}
		seen[name] = true
	}
	if again := (podNames{job: "job", uid: "7fffadaa-9b76-4f67-9962-7fbd36b4f6e0"}).at(17); again != names.at(17) {
		t.Error("the same slot has two names")
	}
	if (podNames{job: "job", uid: "other"}).at(0) == names.at(0) {
		t.Error("two Jobs begin with the same name")
	}
	long := podNames{job: strings.Repeat("x", 63), uid: "u"}.at(5)
	if errs := validation.IsDNS1123Label(long); len(errs) > 0 {
		t.Errorf("%s: %v", long, errs)
	}
}

func TestNewPod(t *testing.T) {
	job := makeJob("job").stored().obj()
	job.Spec.Template.Annotations = map[string]string{"a": "b"}
	job.Spec.Template.Finalizers = []string{"x/y"}
	want := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "job-abcde", GenerateName: "job-", Namespace: "default",
			Labels: job.Spec.Template.Labels, Annotations: map[string]string{"a": "b"},
			Finalizers: []string{"x/y", batchv1.JobTrackingFinalizer},
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: "batch/v1", Kind: "Job", Name: "job", UID: "job-1", Controller: ptr.To(true), BlockOwnerDeletion: ptr.To(true),
			}},
		},
		Spec: job.Spec.Template.Spec,
	}
	got := newPod(job, "job-abcde", creation{})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	got.Labels["x"], got.Finalizers[0], got.Spec.Containers[0].Image = "y", "z", "w"
	if job.Spec.Template.Labels["x"] != "" || job.Spec.Template.Finalizers[0] != "x/y" || job.Spec.Template.Spec.Containers[0].Image != "busybox" {
		t.Error("the pod shares memory with the Job")
	}
}

func TestCompareWorth(t *testing.T) {
	at := func(s int) time.Time { return epoch.Add(time.Duration(s) * time.Second) }
	order := []*pod{
		{podRef: podRef{Name: "unscheduled"}, phase: corev1.PodPending},
		{podRef: podRef{Name: "pending"}, scheduled: true, phase: corev1.PodPending},
		{podRef: podRef{Name: "unknown"}, scheduled: true, phase: corev1.PodUnknown},
		{podRef: podRef{Name: "restarted"}, scheduled: true, phase: corev1.PodRunning, restarts: 2},
		{podRef: podRef{Name: "young"}, scheduled: true, phase: corev1.PodRunning, created: at(9)},
		{podRef: podRef{Name: "old"}, scheduled: true, phase: corev1.PodRunning, created: at(1)},
		{podRef: podRef{Name: "just ready"}, scheduled: true, phase: corev1.PodRunning, ready: true, readyAt: at(9)},
		{podRef: podRef{Name: "long ready"}, scheduled: true, phase: corev1.PodRunning, ready: true, readyAt: at(1)},
	}
	for i := range order {
		for j := range order {
			want := 0
			switch {
			case i < j:
				want = -1
			case i > j:
				want = 1
			}
			if got := compareWorth(order[i], order[j]); got != want {
				t.Errorf("%s, %s: %d", order[i].Name, order[j].Name, got)
			}
		}
	}
}

func TestEndTime(t *testing.T) {
	sec := func(s int) metav1.Time { return metav1.NewTime(epoch.Add(time.Duration(s) * time.Second)) }
	terminated := func(name string, at metav1.Time) corev1.ContainerStatus {
		return corev1.ContainerStatus{Name: name, State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{FinishedAt: at}}}
	}
	sidecar := corev1.PodSpec{InitContainers: []corev1.Container{{Name: "side", RestartPolicy: ptr.To(corev1.ContainerRestartPolicyAlways)}, {Name: "init"}}}
	notReady := corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionFalse, LastTransitionTime: sec(5)}
	for _, tc := range []struct {
		name string
		pod  corev1.Pod
		want metav1.Time
	}{
		{"last container", corev1.Pod{Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{terminated("a", sec(3)), terminated("b", sec(7))}}}, sec(7)},
		{"sidecar ends last", corev1.Pod{Spec: sidecar, Status: corev1.PodStatus{
			ContainerStatuses:     []corev1.ContainerStatus{terminated("a", sec(3))},
			InitContainerStatuses: []corev1.ContainerStatus{terminated("side", sec(8)), terminated("init", sec(99))},
		}}, sec(8)},
		{"a container has no end: when it ceased to be ready", corev1.Pod{Status: corev1.PodStatus{
			ContainerStatuses: []corev1.ContainerStatus{terminated("a", sec(3)), {Name: "b"}}, Conditions: []corev1.PodCondition{notReady},
		}}, sec(5)},
		{"deleted: when that was asked for", corev1.Pod{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: ptr.To(sec(40)), DeletionGracePeriodSeconds: ptr.To[int64](30)}}, sec(10)},
		{"nothing known: its creation", corev1.Pod{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: sec(2)}}, sec(2)},
	} {
		if got := endTime(&tc.pod); !got.Equal(tc.want.Time) {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
}
