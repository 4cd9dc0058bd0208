//go:build cluster

package cluster_test

import (
	"fmt"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"errand.dev/errand/test/cluster"
)

// feature is a promise of Jobs. Both errand and upstream's controller must keep it, in a cluster of the same kind: what fails with
// both is wrong here.
type feature struct {
	name string
	try  func(*world)
}

var features = []feature{
	{"non-indexed", nonIndexed}, {"work-queue", workQueue}, {"indexed", indexed}, {"backoff-limit", backoffLimit},
	{"policy-fail-job", policyFailJob}, {"policy-ignore", policyIgnore}, {"policy-count", policyCount}, {"policy-fail-index", policyFailIndex},
	{"limit-per-index", limitPerIndex}, {"max-failed-indexes", maxFailedIndexes}, {"success-policy", successPolicy},
	{"suspend", suspend}, {"elastic", elastic}, {"deadline", deadline}, {"ttl", ttl}, {"replacement", replacement}, {"cron", cron},
	{"deleted", deleted},
}

// tryFeatures tries them all, at once.
func tryFeatures(t *testing.T, w *world) {
	for _, f := range features {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			f.try(w.with(t))
		})
	}
}

var (
	succeed = func(*corev1.Pod, int) *cluster.End { return &cluster.End{} }
	hold    = func(*corev1.Pod, int) *cluster.End { return nil }
)

// fail has each pod end with that exit code.
func fail(code int32) cluster.Decision {
	return func(*corev1.Pod, int) *cluster.End { return &cluster.End{Code: code} }
}

// failNth has each n-th pod fail.
func failNth(nth int) cluster.Decision {
	return func(_ *corev1.Pod, n int) *cluster.End {
		if n%nth == 0 {
			return &cluster.End{Code: 1}
		}
		return &cluster.End{}
	}
}

func index(p *corev1.Pod) string { return p.Annotations[batchv1.JobCompletionIndexAnnotation] }

// byIndex has the pods of the indexes named end with those codes, the others with 0; a code below 0 means not at all.
func byIndex(codes map[string]int32) cluster.Decision {
	return func(p *corev1.Pod, _ int) *cluster.End {
		if code := codes[index(p)]; code >= 0 {
			return &cluster.End{Code: code}
		}
		return nil
	}
}

// wantPods compares how many pods a Job has made: none is ever deleted but with it, or by a suspension.
func (w *world) wantPods(job string, want int) {
	w.t.Helper()
	if pods := w.pods(job); len(pods) != want {
		w.t.Errorf("Job %s has made %d pods, want %d", job, len(pods), want)
	}
}

func nonIndexed(w *world) {
	p := w.run("non-indexed", spec{Completions: ptr.To[int32](5), Parallelism: ptr.To[int32](2)}, failNth(4))
	w.ends("non-indexed", result{end: batchv1.JobComplete, reason: "CompletionsReached", succeeded: 5, failed: 1})
	w.wantPods("non-indexed", 6)
	if p.Seen() != 6 {
		w.t.Errorf("%d pods were seen, want 6", p.Seen())
	}
}

func workQueue(w *world) {
	w.run("work-queue", spec{Parallelism: ptr.To[int32](3)}, succeed)
	w.ends("work-queue", result{end: batchv1.JobComplete, reason: "CompletionsReached", succeeded: 3})
	w.wantPods("work-queue", 3)
}

func indexed(w *world) {
	w.run("indexed", spec{CompletionMode: ptr.To(batchv1.IndexedCompletion), Completions: ptr.To[int32](6), Parallelism: ptr.To[int32](4)}, succeed)
	w.ends("indexed", result{end: batchv1.JobComplete, reason: "CompletionsReached", succeeded: 6, indexes: [2]string{"0-5"}})
	for _, p := range w.pods("indexed") {
		if want := "indexed-" + index(&p); p.Spec.Hostname != want {
			w.t.Errorf("pod %s has the host name %q, want %q", p.Name, p.Spec.Hostname, want)
		}
	}
	w.wantPods("indexed", 6)
}

func backoffLimit(w *world) {
	w.run("backoff-limit", spec{BackoffLimit: ptr.To[int32](1)}, fail(1))
	w.ends("backoff-limit", result{end: batchv1.JobFailed, reason: "BackoffLimitExceeded", failed: 2})
	w.wantPods("backoff-limit", 2)
}

func onExit(action batchv1.PodFailurePolicyAction, codes ...int32) batchv1.PodFailurePolicyRule {
	return batchv1.PodFailurePolicyRule{Action: action, OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{
		Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: codes,
	}}
}

func rules(rules ...batchv1.PodFailurePolicyRule) *batchv1.PodFailurePolicy {
	return &batchv1.PodFailurePolicy{Rules: rules}
}

func policyFailJob(w *world) {
	w.run("policy-fail-job", spec{PodFailurePolicy: rules(onExit(batchv1.PodFailurePolicyActionFailJob, 42))}, fail(42))
	w.ends("policy-fail-job", result{end: batchv1.JobFailed, reason: "PodFailurePolicy", failed: 1})
	w.wantPods("policy-fail-job", 1)
}

func policyIgnore(w *world) {
	ignore := batchv1.PodFailurePolicyRule{Action: batchv1.PodFailurePolicyActionIgnore, OnPodConditions: []batchv1.PodFailurePolicyOnPodConditionsPattern{
		{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue},
	}}
	w.run("policy-ignore", spec{BackoffLimit: ptr.To[int32](0), PodFailurePolicy: rules(ignore)}, func(_ *corev1.Pod, n int) *cluster.End {
		if n == 1 {
			return &cluster.End{Code: 137, Condition: corev1.DisruptionTarget}
		}
		return &cluster.End{}
	})
	w.ends("policy-ignore", result{end: batchv1.JobComplete, reason: "CompletionsReached", succeeded: 1})
	w.wantPods("policy-ignore", 2)
}

func policyCount(w *world) {
	policy := rules(onExit(batchv1.PodFailurePolicyActionCount, 5), onExit(batchv1.PodFailurePolicyActionFailJob, 5, 6))
	w.run("policy-count", spec{BackoffLimit: ptr.To[int32](1), PodFailurePolicy: policy}, fail(5))
	w.ends("policy-count", result{end: batchv1.JobFailed, reason: "BackoffLimitExceeded", failed: 2})
	w.wantPods("policy-count", 2)
}

// indexedSpec is that of an Indexed Job whose pods all run at once.
func indexedSpec(completions int32) spec {
	return spec{CompletionMode: ptr.To(batchv1.IndexedCompletion), Completions: &completions, Parallelism: &completions}
}

func policyFailIndex(w *world) {
	s := indexedSpec(3)
	s.BackoffLimitPerIndex, s.PodFailurePolicy = ptr.To[int32](2), rules(onExit(batchv1.PodFailurePolicyActionFailIndex, 42))
	w.run("policy-fail-index", s, byIndex(map[string]int32{"1": 42}))
	w.ends("policy-fail-index", result{end: batchv1.JobFailed, reason: "FailedIndexes", succeeded: 2, failed: 1, indexes: [2]string{"0,2", "1"}})
	w.wantPods("policy-fail-index", 3)
}

func limitPerIndex(w *world) {
	s := indexedSpec(4)
	s.BackoffLimitPerIndex = ptr.To[int32](1)
	w.run("limit-per-index", s, byIndex(map[string]int32{"0": 1}))
	w.ends("limit-per-index", result{end: batchv1.JobFailed, reason: "FailedIndexes", succeeded: 3, failed: 2, indexes: [2]string{"1-3", "0"}})
	w.wantPods("limit-per-index", 5)
}

func maxFailedIndexes(w *world) {
	s := indexedSpec(4)
	s.BackoffLimitPerIndex, s.MaxFailedIndexes = ptr.To[int32](0), ptr.To[int32](1)
	w.run("max-failed-indexes", s, byIndex(map[string]int32{"0": 1, "2": 1, "1": -1, "3": -1}))
	// The two that still ran are terminated, and count as failed, too.
	w.ends("max-failed-indexes", result{end: batchv1.JobFailed, reason: "MaxFailedIndexesExceeded", failed: 4, indexes: [2]string{"", "0,2"}})
}

func successPolicy(w *world) {
	s := indexedSpec(4)
	s.SuccessPolicy = &batchv1.SuccessPolicy{Rules: []batchv1.SuccessPolicyRule{{SucceededIndexes: ptr.To("0-1"), SucceededCount: ptr.To[int32](1)}}}
	// Those that a success makes needless don't count.
	w.run("success-policy", s, byIndex(map[string]int32{"0": -1, "2": -1, "3": -1}))
	w.ends("success-policy", result{end: batchv1.JobComplete, reason: "SuccessPolicy", succeeded: 1, indexes: [2]string{"1"}})
}

func suspend(w *world) {
	p := w.run("suspend", spec{Completions: ptr.To[int32](4), Parallelism: ptr.To[int32](2)}, func(_ *corev1.Pod, n int) *cluster.End {
		if n == 2 || n == 3 {
			return nil // the one that succeeds is replaced; two run when the Job is suspended
		}
		return &cluster.End{}
	})
	w.until("suspend", "running", func(j *batchv1.Job) bool { return j.Status.Succeeded == 1 && j.Status.Active == 2 })
	w.update("suspend", func(s *spec) { s.Suspend = ptr.To(true) })
	j := w.until("suspend", "suspended", func(j *batchv1.Job) bool { return condition(j, batchv1.JobSuspended) != nil && j.Status.Active == 0 })
	if j.Status.StartTime != nil {
		w.t.Errorf("a suspended Job has the start time %s", j.Status.StartTime)
	}
	w.update("suspend", func(s *spec) { s.Suspend = ptr.To(false) })
	w.ends("suspend", result{end: batchv1.JobComplete, reason: "CompletionsReached", succeeded: 4})
	if p.Seen() != 6 {
		w.t.Errorf("%d pods were made, want 6: 4 that succeeded, 2 that were suspended", p.Seen())
	}
}

func elastic(w *world) {
	resize := func(n int32) {
		w.update("elastic", func(s *spec) { s.Completions, s.Parallelism = &n, &n })
	}
	w.run("elastic", indexedSpec(2), byIndex(map[string]int32{"0": -1, "4": -1}))
	w.until("elastic", "at two", func(j *batchv1.Job) bool { return j.Status.CompletedIndexes == "1" && j.Status.Active == 1 })
	resize(5)
	w.until("elastic", "at five", func(j *batchv1.Job) bool { return j.Status.CompletedIndexes == "1-3" && j.Status.Active == 2 })
	resize(3)
	w.until("elastic", "at three", func(j *batchv1.Job) bool { return j.Status.CompletedIndexes == "1,2" && j.Status.Active == 1 })
	for _, p := range w.pods("elastic") {
		if index(&p) == "0" {
			must(w.t, cluster.EndPod(w.t.Context(), w.client, w.namespace, p.Name, cluster.End{}))
		}
	}
	j := w.until("elastic", "finished", finished)
	if s := j.Status; condition(j, batchv1.JobComplete) == nil || s.Succeeded != 3 || s.CompletedIndexes != "0-2" {
		w.t.Errorf("Job elastic has ended with %+v", s)
	}
}

func deadline(w *world) {
	w.run("deadline", spec{Completions: ptr.To[int32](2), Parallelism: ptr.To[int32](2), ActiveDeadlineSeconds: ptr.To[int64](2)}, hold)
	w.ends("deadline", result{end: batchv1.JobFailed, reason: "DeadlineExceeded", failed: 2})
}

func ttl(w *world) {
	w.run("ttl", spec{TTLSecondsAfterFinished: ptr.To[int32](1)}, succeed)
	w.until("ttl", "finished", finished)
	w.untilGone("ttl")
}

func deleted(w *world) {
	for _, how := range deletions {
		name := fmt.Sprintf("deleted-%s", how.name)
		p := w.run(name, spec{Completions: ptr.To[int32](6), Parallelism: ptr.To[int32](3), BackoffLimit: ptr.To[int32](6)}, func(_ *corev1.Pod, n int) *cluster.End {
			if n == 1 {
				return &cluster.End{}
			}
			return nil
		})
		must(w.t, p.AwaitSeen(w.t.Context(), 4)) // one of them amid being counted
		w.delete(name, how.policy)
		w.untilGone(name)
		w.untilNoPods(name, how.left)
	}
}
