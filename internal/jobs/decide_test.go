package jobs

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

var testLimits = limits{PodFailureBackoff: DefaultPodFailureBackoff, MaxPodFailureBackoff: DefaultMaxPodFailureBackoff}

// viewOf is the view of a Job that has just these pods.
func viewOf(job *batchv1.Job, pods ...*corev1.Pod) *view {
	s := newJobState(job.UID, job.Namespace, job.Name)
	s.applyJob(job, fromInformer)
	for _, p := range pods {
		s.applyPod(p, fromInformer, epoch)
	}
	return s.view(epoch)
}

func status(edit func(*batchv1.JobStatus)) *batchv1.JobStatus {
	s := &batchv1.JobStatus{
		StartTime: ptr.To(metav1.NewTime(epoch)), Ready: ptr.To[int32](0), Terminating: ptr.To[int32](0),
		UncountedTerminatedPods: &batchv1.UncountedTerminatedPods{},
	}
	edit(s)
	return s
}

func ref(name string) podRef { return refOf(makePod(name).obj()) }

func cond(kind batchv1.JobConditionType, reason, message string) batchv1.JobCondition {
	return newCondition(kind, reason, message, epoch)
}

var (
	criteriaMet = cond(batchv1.JobSuccessCriteriaMet, batchv1.JobReasonCompletionsReached, "Reached expected number of succeeded pods")
	overLimit   = cond(batchv1.JobFailureTarget, batchv1.JobReasonBackoffLimitExceeded, "Job has reached the specified backoff limit")
	tooLong     = cond(batchv1.JobFailureTarget, batchv1.JobReasonDeadlineExceeded, "Job was active longer than specified deadline")
)

func TestDecide(t *testing.T) {
	uncountedS := func(uids ...types.UID) func(*batchv1.JobStatus) {
		return func(s *batchv1.JobStatus) {
			s.UncountedTerminatedPods = &batchv1.UncountedTerminatedPods{Succeeded: uids}
		}
	}
	standing := func(c ...batchv1.JobCondition) func(*batchv1.JobStatus) {
		return func(s *batchv1.JobStatus) { s.Conditions = c }
	}
	for _, tc := range []struct {
		name string
		job  *jobBuilder
		pods []*corev1.Pod
		now  time.Time
		want plan
	}{
		{
			name: "a new Job gets its pods and its start time",
			job:  makeJob("job").completions(4).parallelism(3),
			want: plan{Create: slots(0, 1, 2), Status: status(func(s *batchv1.JobStatus) { s.Active = 3 })},
		},
		{
			name: "with one completion left only one pod runs",
			job:  makeJob("job").completions(4).parallelism(3).started(epoch).status(func(s *batchv1.JobStatus) { s.Succeeded = 3 }),
			want: plan{Create: slots(3), Status: status(func(s *batchv1.JobStatus) { s.Active, s.Succeeded = 1, 3 })},
		},
		{
			name: "parallelism 0 runs nothing",
			job:  makeJob("job").completions(2).parallelism(0).started(epoch),
			want: plan{},
		},
		{
			name: "pods that run are left alone",
			job:  makeJob("job").started(epoch).status(func(s *batchv1.JobStatus) { s.Active, s.Ready = 1, ptr.To[int32](1) }),
			pods: []*corev1.Pod{makePod("a").ready().obj()},
			want: plan{},
		},
		{
			name: "an ended pod is named, replaced, and released after that",
			job:  makeJob("job").completions(3).parallelism(1).started(epoch),
			pods: []*corev1.Pod{makePod("a").succeeded().obj()},
			want: plan{
				Create: slots(1),
				Status: status(func(s *batchv1.JobStatus) {
					s.Active = 1
					s.UncountedTerminatedPods.Succeeded = []types.UID{"uid-a"}
				}),
				Release: []release{{podRef: ref("a")}},
			},
		},
		{
			name: "a named pod without finalizer is counted, a named one with it is released again",
			job:  makeJob("job").completions(9).parallelism(0).started(epoch).status(uncountedS("uid-a", "uid-b")),
			pods: []*corev1.Pod{makePod("a").succeeded().released().obj(), makePod("b").succeeded().obj()},
			want: plan{
				Status: status(func(s *batchv1.JobStatus) {
					s.Succeeded = 1
					s.UncountedTerminatedPods.Succeeded = []types.UID{"uid-b"}
				}),
				Release: []release{{podRef: ref("b")}},
			},
		},
		{
			name: "a pod that is named but not yet counted is done: nothing runs in its place",
			job: makeJob("job").completions(2).parallelism(2).started(epoch).status(uncountedS("uid-a")).
				status(func(s *batchv1.JobStatus) { s.Active = 1 }),
			pods: []*corev1.Pod{makePod("a").succeeded().obj(), makePod("b").running().obj()},
			want: plan{Release: []release{{podRef: ref("a")}}},
		},
		{
			name: "the last success decides the end, but nothing is final before it is counted",
			job:  makeJob("job").started(epoch),
			pods: []*corev1.Pod{makePod("a").succeeded().obj()},
			want: plan{
				Status: status(func(s *batchv1.JobStatus) {
					s.Conditions = []batchv1.JobCondition{criteriaMet}
					s.UncountedTerminatedPods.Succeeded = []types.UID{"uid-a"}
				}),
				Release: []release{{podRef: ref("a")}},
			},
		},
		{
			name: "all counted: complete",
			job:  makeJob("job").started(epoch).status(uncountedS("uid-a")).status(standing(criteriaMet)),
			now:  epoch.Add(2 * time.Second),
			want: plan{
				Status: status(func(s *batchv1.JobStatus) {
					s.Succeeded = 1
					s.CompletionTime = ptr.To(metav1.NewTime(epoch.Add(2 * time.Second)))
					s.Conditions = []batchv1.JobCondition{criteriaMet, newCondition(batchv1.JobComplete, batchv1.JobReasonCompletionsReached,
						"Reached expected number of succeeded pods", epoch.Add(2*time.Second))}
				}),
				Events: []event{{"Normal", "Completed", "Job completed"}},
			},
		},
		{
			name: "no completions wanted: complete at once",
			job:  makeJob("job").completions(0),
			want: plan{
				Status: status(func(s *batchv1.JobStatus) {
					s.CompletionTime = ptr.To(metav1.NewTime(epoch))
					s.Conditions = []batchv1.JobCondition{criteriaMet, cond(batchv1.JobComplete, criteriaMet.Reason, criteriaMet.Message)}
				}),
				Events: []event{{"Normal", "Completed", "Job completed"}},
			},
		},
		{
			name: "too many failures: first the interim condition, the other pod runs on until it stands",
			job:  makeJob("job").completions(2).parallelism(2).limit(0).started(epoch),
			pods: []*corev1.Pod{makePod("a").failed().obj(), makePod("b").running().obj()},
			want: plan{
				Status: status(func(s *batchv1.JobStatus) {
					s.Active = 1
					s.Conditions = []batchv1.JobCondition{overLimit}
					s.UncountedTerminatedPods.Failed = []types.UID{"uid-a"}
				}),
				Release: []release{{podRef: ref("a")}},
			},
		},
		{
			name: "a failed Job's pods are deleted, to be counted",
			job: makeJob("job").completions(2).parallelism(2).limit(0).started(epoch).status(standing(overLimit)).
				status(func(s *batchv1.JobStatus) { s.Failed, s.Active = 1, 1 }),
			pods: []*corev1.Pod{makePod("b").ready().obj()},
			want: plan{
				Delete: []deletion{{podRef: ref("b")}},
				Status: status(func(s *batchv1.JobStatus) {
					s.Failed, s.Terminating = 1, ptr.To[int32](1)
					s.Conditions = []batchv1.JobCondition{overLimit}
				}),
			},
		},
		{
			name: "a pod that takes its time to end holds up the end of the Job",
			job: makeJob("job").limit(0).started(epoch).status(standing(overLimit)).
				status(func(s *batchv1.JobStatus) { s.Failed, s.Terminating = 1, ptr.To[int32](1) }),
			pods: []*corev1.Pod{makePod("b").running().deleting().released().obj()},
			want: plan{},
		},
		{
			name: "all pods of the failed Job have ended: failed",
			job:  makeJob("job").limit(0).started(epoch).status(standing(overLimit)).status(func(s *batchv1.JobStatus) { s.Failed = 1 }),
			want: plan{
				Status: status(func(s *batchv1.JobStatus) {
					s.Failed = 1
					s.Conditions = []batchv1.JobCondition{overLimit, cond(batchv1.JobFailed, overLimit.Reason, overLimit.Message)}
				}),
				Events: []event{{"Warning", "BackoffLimitExceeded", "Job has reached the specified backoff limit"}},
			},
		},
		{
			name: "past the deadline",
			job:  makeJob("job").deadline(5).started(epoch).status(func(s *batchv1.JobStatus) { s.Active = 1 }),
			pods: []*corev1.Pod{makePod("a").running().obj()},
			now:  epoch.Add(5 * time.Second),
			want: plan{Status: status(func(s *batchv1.JobStatus) {
				s.Active = 1
				s.Conditions = []batchv1.JobCondition{newCondition(tooLong.Type, tooLong.Reason, tooLong.Message, epoch.Add(5*time.Second))}
			})},
		},
		{
			name: "before the deadline it is looked at again in time",
			job:  makeJob("job").deadline(5).started(epoch).status(func(s *batchv1.JobStatus) { s.Active = 1 }),
			pods: []*corev1.Pod{makePod("a").running().obj()},
			now:  epoch.Add(2 * time.Second),
			want: plan{Again: 3 * time.Second},
		},
		{
			name: "a failure delays its replacement",
			job:  makeJob("job").started(epoch).status(func(s *batchv1.JobStatus) { s.Failed = 1 }),
			pods: []*corev1.Pod{makePod("a").failed().released().obj()},
			now:  epoch.Add(4 * time.Second),
			want: plan{Again: 6 * time.Second},
		},
		{
			name: "suspension discards the pods, then says so",
			job:  makeJob("job").completions(2).parallelism(2).suspended().started(epoch).status(func(s *batchv1.JobStatus) { s.Active = 1 }),
			pods: []*corev1.Pod{makePod("a").running().obj()},
			want: plan{
				Delete: []deletion{{podRef: ref("a"), Discard: true}},
				Status: status(func(s *batchv1.JobStatus) {
					s.StartTime, s.Terminating = nil, ptr.To[int32](1)
					s.Conditions = []batchv1.JobCondition{cond(batchv1.JobSuspended, "JobSuspended", "Job suspended")}
				}),
				Events: []event{{"Normal", "Suspended", "Job suspended"}},
			},
		},
		{
			name: "too many pods: the one that doesn't run yet goes",
			job:  makeJob("job").completions(5).parallelism(1).started(epoch).status(func(s *batchv1.JobStatus) { s.Active = 2 }),
			pods: []*corev1.Pod{makePod("a").running().obj(), makePod("b").obj()},
			want: plan{
				Delete: []deletion{{podRef: ref("b"), Discard: true}},
				Status: status(func(s *batchv1.JobStatus) { s.Active, s.Terminating = 1, ptr.To[int32](1) }),
			},
		},
		{
			name: "a work queue runs parallelism pods",
			job:  makeJob("job").workQueue().parallelism(2),
			want: plan{Create: slots(0, 1), Status: status(func(s *batchv1.JobStatus) { s.Active = 2 })},
		},
		{
			name: "a work queue with a success adds no pods and waits for the rest",
			job: makeJob("job").workQueue().parallelism(3).started(epoch).
				status(func(s *batchv1.JobStatus) { s.Succeeded, s.Active = 1, 1 }),
			pods: []*corev1.Pod{makePod("b").running().obj()},
			want: plan{},
		},
		{
			name: "a pod being deleted counts as failed and is replaced, after the delay",
			job:  makeJob("job").started(epoch),
			pods: []*corev1.Pod{makePod("a").running().deleting().obj()},
			want: plan{
				Status: status(func(s *batchv1.JobStatus) {
					s.Terminating = ptr.To[int32](1)
					s.UncountedTerminatedPods.Failed = []types.UID{"uid-a"}
				}),
				Release: []release{{podRef: ref("a")}},
				Again:   10 * time.Second,
			},
		},
		{
			name: "with podReplacementPolicy Failed it isn't, before it has ended",
			job: makeJob("job").replaceFailedOnly().started(epoch).
				status(func(s *batchv1.JobStatus) { s.Terminating = ptr.To[int32](1) }),
			pods: []*corev1.Pod{makePod("a").running().deleting().obj()},
			want: plan{},
		},
		{
			name: "a finished Job's pods lose the finalizer, uncounted",
			job: makeJob("job").started(epoch).status(standing(overLimit, cond(batchv1.JobFailed, "", ""))).
				status(func(s *batchv1.JobStatus) { s.Failed = 1 }),
			pods: []*corev1.Pod{makePod("a").failed().obj()},
			want: plan{Release: []release{{podRef: ref("a")}}},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			job := tc.job.stored().obj()
			now := tc.now
			if now.IsZero() {
				now = epoch
			}
			got := decide(job, viewOf(job, tc.pods...), now, testLimits)
			if diff := cmp.Diff(tc.want, got, cmp.AllowUnexported(release{}, deletion{}, claim{})); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
		})
	}
}

// A plan that was carried out leaves nothing to do: deciding again on what the API then holds is idle.
func TestDecideIsIdempotent(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").completions(3).parallelism(2).obj())
	w.settle()
	before := len(w.api.log)
	w.Job(job.UID, 0)
	w.settle()
	if got := len(w.api.log) - before; got != 0 {
		t.Errorf("%d writes for nothing", got)
	}
}

func slots(slots ...int64) []creation {
	var out []creation
	for _, slot := range slots {
		out = append(out, creation{Slot: slot})
	}
	return out
}
