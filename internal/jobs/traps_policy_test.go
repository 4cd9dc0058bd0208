package jobs

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// protocol tells how the Job came to its end: the conditions that became true, with their reasons, and when pods were deleted.
func (w *world) protocol() []string {
	var steps []string
	for _, c := range w.api.log {
		switch obj := c.new.(type) {
		case *batchv1.Job:
			was, _ := c.old.(*batchv1.Job)
			for _, cond := range obj.Status.Conditions {
				if cond.Status == corev1.ConditionTrue && (was == nil || !isTrue(was.Status.Conditions, cond.Type)) {
					steps = append(steps, string(cond.Type)+" "+cond.Reason)
				}
			}
		case *corev1.Pod:
			if was, _ := c.old.(*corev1.Pod); was != nil && was.DeletionTimestamp == nil && obj.DeletionTimestamp != nil {
				steps = append(steps, "pods deleted")
			}
		}
	}
	return slices.Compact(steps)
}

// runAll marks all of the Job's pods as running, so that they take their time to end.
func (w *world) runAll(job *batchv1.Job) {
	w.t.Helper()
	w.settle()
	for _, p := range w.active(job) {
		w.running(p)
	}
	w.settle()
}

// A pod that is being deleted is judged by its policy once it has ended, not before: only then its exit code is known.
func TestKK113855_KK116858_JudgedBeforeTheEnd(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").completions(2).parallelism(2).failureRules(
		onExit(batchv1.PodFailurePolicyActionFailJob, 42), onCondition(batchv1.PodFailurePolicyActionIgnore, corev1.DisruptionTarget),
	).obj())
	w.runAll(job)
	pod := w.active(job)[0]
	w.api.setPod("default", pod.Name, func(p *corev1.Pod) {
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue})
	})
	w.deletePod(pod)
	w.pass(time.Hour)
	status := w.job("job").Status
	if status.Failed != 0 || *status.Terminating != 1 || status.Active != 1 || len(status.Conditions) > 0 {
		t.Fatalf("before its end: status %+v", status)
	}
	w.fail(pod, 42)
	w.settle()
	c := findCondition(w.job("job").Status.Conditions, batchv1.JobFailureTarget)
	if want := "Container main for pod default/" + pod.Name + " failed with exit code 42 matching FailJob rule at index 0"; c == nil || c.Message != want {
		t.Errorf("condition %+v", c)
	}
}

// Nor is one judged whose container has ended while the pod hasn't: it may yet be restarted.
func TestKK113855_ContainerEndedPodNot(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").failureRules(onExit(batchv1.PodFailurePolicyActionFailJob, 42)).obj())
	w.runAll(job)
	w.api.setPod("default", w.active(job)[0].Name, func(p *corev1.Pod) {
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", State: corev1.ContainerState{
			Terminated: &corev1.ContainerStateTerminated{ExitCode: 42, FinishedAt: w.api.now()},
		}}}
	})
	w.settle()
	if status := w.job("job").Status; len(status.Conditions) > 0 || status.Failed != 0 || status.Active != 1 {
		t.Errorf("status %+v", status)
	}
}

// A disrupted pod that a rule ignores doesn't count towards a limit of 0, delays its replacement like any other, and has one.
func TestDisruptionIgnored(t *testing.T) {
	for name, b := range map[string]*jobBuilder{
		"not indexed": makeJob("job").limit(0),
		"indexed":     makeJob("job").indexed(1).limit(0),
		"per index":   makeJob("job").indexed(1).limitPerIndex(0).maxFailedIndexes(0),
	} {
		w := newWorld(t)
		job := w.create(b.failureRules(onCondition(batchv1.PodFailurePolicyActionIgnore, corev1.DisruptionTarget)).obj())
		for range 3 {
			w.runAll(job)
			w.fail(w.active(job)[0], 137, corev1.DisruptionTarget)
			w.pass(time.Hour)
		}
		status := w.job("job").Status
		if status.Failed != 0 || len(status.Conditions) > 0 || len(w.active(job)) != 1 {
			t.Fatalf("%s: %d active, status %+v", name, len(w.active(job)), status)
		}
		w.endAll(job, corev1.PodSucceeded)
		w.settle()
		if !isTrue(w.job("job").Status.Conditions, batchv1.JobComplete) {
			t.Errorf("%s: status %+v", name, w.job("job").Status)
		}
		w.untracked()
	}
}

// The replacement of a pod whose failure was ignored knows of it, so that the delay goes on growing.
func TestIgnoredFailuresOfAnIndexDelay(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").indexed(1).limitPerIndex(0).failureRules(onExit(batchv1.PodFailurePolicyActionIgnore, 3)).obj())
	for _, want := range []time.Duration{10, 20, 40} {
		w.settle()
		w.fail(w.active(job)[0], 3)
		if got := w.nextPodIn(job); got != want*time.Second {
			t.Errorf("waited %v, want %ds", got, want)
		}
	}
	if got := readIndexFailures(w.ofIndex(job, 0)); got != (indexFailures{Ignored: 3}) {
		t.Errorf("the pod knows of %+v", got)
	}
}

// FailJob: first the interim condition with the pod's own reason, then the other pods end and are counted, then Failed.
func TestFailJob(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").completions(3).parallelism(3).limit(6).failureRules(onExit(batchv1.PodFailurePolicyActionFailJob, 42)).obj())
	w.runAll(job)
	pod := w.active(job)[1]
	w.fail(pod, 42)
	w.settle()
	if status := w.job("job").Status; isFinished(w.job("job")) || *status.Terminating != 2 || status.Active != 0 {
		t.Fatalf("while pods terminate: status %+v", status)
	}
	w.endDeleted()
	if diff := cmp.Diff([]string{"FailureTarget PodFailurePolicy", "pods deleted", "Failed PodFailurePolicy"}, w.protocol()); diff != "" {
		t.Error(diff)
	}
	message := "Container main for pod default/" + pod.Name + " failed with exit code 42 matching FailJob rule at index 0"
	if c := findCondition(w.job("job").Status.Conditions, batchv1.JobFailed); c.Message != message {
		t.Errorf("message %q", c.Message)
	}
	if last := w.events.lines[len(w.events.lines)-1]; last != "Warning PodFailurePolicy "+message {
		t.Errorf("event %q", last)
	}
	if got := w.job("job").Status.Failed; got != 3 {
		t.Errorf("%d failed", got)
	}
	w.untracked()
}

// A failure by FailJob is decided together with the pod's being named: a crash at no step makes the Job forget it.
func TestFailJobAfterACrash(t *testing.T) {
	for step := 0; ; step++ {
		crashed := false
		for _, applied := range []bool{false, true} {
			w := newWorld(t)
			job := w.create(makeJob("job").indexed(3).parallelism(1).limitPerIndex(5).failureRules(onExit(batchv1.PodFailurePolicyActionFailJob, 42)).obj())
			w.settle()
			w.fail(w.active(job)[0], 42)
			crashed = w.crashAt(step, applied)
			w.pass(time.Hour)
			status := w.job("job").Status
			if c := findCondition(status.Conditions, batchv1.JobFailed); c == nil || c.Reason != batchv1.JobReasonPodFailurePolicy || status.Failed != 1 {
				t.Errorf("crash at %d, applied %v: status %+v", step, applied, status)
			}
			w.untracked()
		}
		if !crashed {
			return
		}
	}
}

// FailIndex gives up the index at its first failure, and the others go on.
func TestFailIndex(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").indexed(3).parallelism(2).limitPerIndex(5).failureRules(onExit(batchv1.PodFailurePolicyActionFailIndex, 42)).obj())
	w.settle()
	w.fail(w.ofIndex(job, 0), 42)
	w.fail(w.ofIndex(job, 1), 1)
	w.pass(time.Hour)
	status := w.job("job").Status
	if *status.FailedIndexes != "0" || w.indexesOf(job) != "[1 2]" || w.createdFor(job, 0) != 1 || status.Failed != 2 {
		t.Fatalf("active %s, status %+v", w.indexesOf(job), status)
	}
	w.endAll(job, corev1.PodSucceeded)
	w.settle()
	status = w.job("job").Status
	if status.CompletedIndexes != "1,2" || *status.FailedIndexes != "0" {
		t.Errorf("status %+v", status)
	}
	if diff := cmp.Diff([]string{"FailureTarget FailedIndexes", "Failed FailedIndexes"}, w.protocol()); diff != "" {
		t.Error(diff)
	}
}

// Without maxFailedIndexes all indexes have their chance, and a Job of which one was given up is Failed all the same (KEP-3850).
func TestFailedIndexes(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").indexed(3).parallelism(1).limitPerIndex(0).obj())
	w.settle()
	for _, phase := range []corev1.PodPhase{corev1.PodFailed, corev1.PodSucceeded, corev1.PodSucceeded} {
		if isFinished(w.job("job")) {
			t.Fatal("finished early")
		}
		w.endAll(job, phase)
		w.settle()
	}
	status := w.job("job").Status
	c := findCondition(status.Conditions, batchv1.JobFailed)
	if c == nil || c.Reason != batchv1.JobReasonFailedIndexes || c.Message != "Job has failed indexes" || status.CompletionTime != nil {
		t.Errorf("status %+v", status)
	}
	if status.CompletedIndexes != "1,2" || *status.FailedIndexes != "0" || status.Succeeded != 2 || status.Failed != 1 {
		t.Errorf("status %+v", status)
	}
}

// One more index given up than maxFailedIndexes ends the Job at once; those whose pods end only because of that haven't failed.
func TestMaxFailedIndexes(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").indexed(5).parallelism(3).limitPerIndex(0).maxFailedIndexes(1).obj())
	w.runAll(job)
	w.end(w.ofIndex(job, 0), corev1.PodFailed)
	w.runAll(job)
	if got := w.indexesOf(job); got != "[1 2 3]" {
		t.Fatalf("after one: active %s", got)
	}
	w.end(w.ofIndex(job, 2), corev1.PodFailed)
	w.endDeleted()
	if diff := cmp.Diff([]string{"FailureTarget MaxFailedIndexesExceeded", "pods deleted", "Failed MaxFailedIndexesExceeded"}, w.protocol()); diff != "" {
		t.Error(diff)
	}
	if status := w.job("job").Status; *status.FailedIndexes != "0,2" || status.Failed != 4 {
		t.Errorf("indexes %q, failed %d", *status.FailedIndexes, status.Failed)
	}
	w.untracked()
}

// The limit of the whole Job holds as well, and an index that was still to run again hasn't failed because of it.
func TestLimitOfTheJobBeforeThatOfAnIndex(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").indexed(3).parallelism(3).limitPerIndex(1).limit(2).obj())
	for index := range int32(3) {
		w.runAll(job)
		w.end(w.ofIndex(job, index), corev1.PodFailed)
		w.pass(time.Minute)
	}
	w.endDeleted()
	if diff := cmp.Diff([]string{"FailureTarget BackoffLimitExceeded", "pods deleted", "Failed BackoffLimitExceeded"}, w.protocol()); diff != "" {
		t.Error(diff)
	}
	if status := w.job("job").Status; *status.FailedIndexes != "" || status.Failed != 5 {
		t.Errorf("indexes %q, failed %d", *status.FailedIndexes, status.Failed)
	}
}

// An index that waits after a failure keeps no other from running, and its failures delay only itself.
func TestIndexInBackoffKeepsNoOtherFromRunning(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").indexed(4).parallelism(2).limitPerIndex(5).obj())
	w.settle()
	w.end(w.ofIndex(job, 0), corev1.PodFailed)
	w.settle()
	if got := w.indexesOf(job); got != "[1 2]" {
		t.Fatalf("active %s", got)
	}
	w.end(w.ofIndex(job, 1), corev1.PodFailed)
	w.settle()
	if got := w.indexesOf(job); got != "[2 3]" {
		t.Fatalf("active %s", got)
	}
	w.end(w.ofIndex(job, 2), corev1.PodSucceeded)
	w.pass(9 * time.Second)
	if got := w.indexesOf(job); got != "[3]" {
		t.Fatalf("active before the delay is over: %s", got)
	}
	w.pass(time.Second)
	if got := w.indexesOf(job); got != "[0 3]" {
		t.Errorf("active %s", got)
	}
}

// The delay of an index grows with its own failures, whatever the others do.
func TestBackoffOfAnIndex(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").indexed(3).parallelism(1).limitPerIndex(9).obj())
	w.settle()
	w.end(w.ofIndex(job, 0), corev1.PodFailed)
	w.settle()
	w.endAll(job, corev1.PodSucceeded) // index 1: no success takes the delay of index 0 away
	w.settle()
	w.endAll(job, corev1.PodSucceeded) // 2
	for _, want := range []time.Duration{10, 20, 40, 80} {
		if got := w.nextPodIn(job); got != want*time.Second {
			t.Errorf("waited %v, want %ds", got, want)
		}
		w.end(w.ofIndex(job, 0), corev1.PodFailed)
	}
}

// How often an index has failed is known after a crash at any step: it has as many pods as it may fail, and one.
func TestIndexFailuresSurviveACrash(t *testing.T) {
	for step := 0; ; step++ {
		crashed := false
		for _, applied := range []bool{false, true} {
			if w := newWorld(t); w.failIndexThrice(step, applied) {
				crashed = true
			}
			if t.Failed() {
				t.Fatalf("crash at request %d, applied %v", step, applied)
			}
		}
		if !crashed {
			return
		}
	}
}

// failIndexThrice lets index 0 of a Job that tolerates two failures fail until it is given up, with a crash at the n-th request to the API.
func (w *world) failIndexThrice(n int, applied bool) (crashed bool) {
	w.t.Helper()
	job := w.create(makeJob("job").indexed(2).parallelism(2).limitPerIndex(2).obj())
	requests := 0
	w.api.hook = func(string, string, string) fault {
		requests++
		return fault{crash: requests == n+1, applied: applied}
	}
	for range 5 {
		if crashes(func() { w.pass(time.Hour) }) {
			crashed = true
			w.boot(0, 0)
			w.pass(time.Hour)
		}
		for _, p := range w.active(job) {
			if completionIndex("job", p) == 0 {
				w.end(p, corev1.PodFailed)
			}
		}
	}
	w.endAll(job, corev1.PodSucceeded)
	if crashes(func() { w.pass(time.Hour) }) {
		crashed = true
		w.boot(0, 0)
		w.pass(time.Hour)
	}
	status := w.job("job").Status
	if w.createdFor(job, 0) != 3 || w.createdFor(job, 1) != 1 || *status.FailedIndexes != "0" || status.CompletedIndexes != "1" || status.Failed != 3 {
		w.t.Errorf("%d pods for index 0, status %+v", w.createdFor(job, 0), status)
	}
	w.untracked()
	return crashed
}

// A namespace that is being deleted refuses the pod that was to take over an index's failures: nothing waits for it with its finalizer on.
func TestNamespaceTerminatingPerIndex(t *testing.T) {
	for _, restart := range []bool{false, true} {
		w := newWorld(t)
		job := w.create(makeJob("job").indexed(4).parallelism(3).limitPerIndex(5).obj())
		w.runAll(job)
		w.end(w.ofIndex(job, 0), corev1.PodFailed)
		w.settle() // index 0 waits, and its pod with it
		w.api.terminating["default"] = true
		for _, p := range w.api.podsOf(nil) {
			w.deletePod(p)
		}
		if restart {
			w.boot(0, 0)
		}
		w.endDeleted()
		w.pass(time.Minute)
		if left := w.api.podsOf(nil); len(left) > 0 {
			t.Errorf("restart %v: %d pods are left, tracked %v", restart, len(left), isTracked(left[0]))
		}
		for _, reason := range w.events.reasons() {
			if reason == "FailedCreate" {
				t.Error("an event about what nobody can change")
			}
		}
	}
}

// A Job that is deleted doesn't wait either, whichever way.
func TestDeletedJobReleasesFailedIndexes(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").indexed(2).parallelism(2).limitPerIndex(5).obj())
	w.settle()
	w.end(w.ofIndex(job, 0), corev1.PodFailed)
	w.settle()
	w.api.editJob("default", "job", func(j *batchv1.Job) {
		now := w.api.now()
		j.DeletionTimestamp, j.Finalizers = &now, []string{"foregroundDeletion"}
	})
	w.settle()
	w.untracked()
	if got := w.api.calls["create pods"]; got != 2 {
		t.Errorf("%d pods", got)
	}
}

// The success policy ends a Job before all of its indexes have succeeded: by which have, or by how many. The other pods are ended and don't count.
func TestSuccessPolicy(t *testing.T) {
	for _, tc := range []struct {
		name     string
		rules    []batchv1.SuccessPolicyRule
		succeed  []int32
		message  string
		complete string
	}{
		{"by index", []batchv1.SuccessPolicyRule{succeeding("2", -1)}, []int32{0, 2}, "Matched rules at index 0", "0,2"},
		{"by count", []batchv1.SuccessPolicyRule{succeeding("3", -1), succeeding("", 2)}, []int32{1, 0}, "Matched rules at index 1", "0,1"},
		{"by count among indexes", []batchv1.SuccessPolicyRule{succeeding("1-3", 2)}, []int32{0, 1, 3}, "Matched rules at index 0", "0,1,3"},
	} {
		w := newWorld(t)
		job := w.create(makeJob("job").indexed(4).parallelism(4).successRules(tc.rules...).obj())
		w.runAll(job)
		for _, index := range tc.succeed {
			if len(w.protocol()) > 0 {
				t.Fatalf("%s: ended early", tc.name)
			}
			w.end(w.ofIndex(job, index), corev1.PodSucceeded)
			w.settle()
		}
		if isFinished(w.job("job")) {
			t.Errorf("%s: finished while pods terminate", tc.name)
		}
		w.endDeleted()
		if diff := cmp.Diff([]string{"SuccessCriteriaMet SuccessPolicy", "pods deleted", "Complete SuccessPolicy"}, w.protocol()); diff != "" {
			t.Errorf("%s: %s", tc.name, diff)
		}
		status := w.job("job").Status
		if c := findCondition(status.Conditions, batchv1.JobComplete); c == nil || c.Message != tc.message {
			t.Errorf("%s: %+v", tc.name, status.Conditions)
		}
		if status.CompletedIndexes != tc.complete || int(status.Succeeded) != len(tc.succeed) || status.Failed != 0 || status.CompletionTime == nil {
			t.Errorf("%s: status %+v", tc.name, status)
		}
		w.untracked()
	}
}

// A Job of which an index was given up is Failed once the others have ended, even if they meet the policy only then.
func TestFailedIndexBeforeSuccessPolicy(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").indexed(2).parallelism(2).limitPerIndex(0).successRules(succeeding("", 1)).obj())
	w.settle()
	w.end(w.ofIndex(job, 0), corev1.PodFailed)
	w.settle()
	w.end(w.ofIndex(job, 1), corev1.PodSucceeded)
	w.settle()
	if diff := cmp.Diff([]string{"FailureTarget FailedIndexes", "Failed FailedIndexes"}, w.protocol()); diff != "" {
		t.Error(diff)
	}
}

// What the policy has decided stands, even if a pod fails too often after that.
func TestSuccessPolicyStands(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").indexed(3).parallelism(3).limitPerIndex(0).maxFailedIndexes(0).successRules(succeeding("0", -1)).obj())
	w.runAll(job)
	w.end(w.ofIndex(job, 0), corev1.PodSucceeded)
	w.api.hook = func(verb, resource, _ string) fault {
		return fault{crash: verb == "delete" && resource == "pods" || verb == "patch"}
	}
	if !crashes(func() { w.settle() }) {
		t.Fatal("no crash")
	}
	w.api.hook = nil
	w.end(w.ofIndex(job, 1), corev1.PodFailed)
	w.boot(0, 0)
	w.endDeleted()
	if status := w.job("job").Status; !isTrue(status.Conditions, batchv1.JobComplete) || isTrue(status.Conditions, batchv1.JobFailureTarget) {
		t.Errorf("status %+v", status)
	}
	w.untracked()
}

// The pods that a failed Job terminates count as failed, but their indexes weren't given up: only those that failed are in failedIndexes, as
// upstream's controller has it; also if the engine is another one by then.
func TestTerminatedPodsDoNotFailTheirIndex(t *testing.T) {
	for _, crash := range []bool{false, true} {
		w := newWorld(t)
		job := w.create(makeJob("job").indexed(4).parallelism(4).limitPerIndex(0).maxFailedIndexes(1).obj())
		w.settle()
		for _, p := range w.active(job) {
			if i := p.Annotations[batchv1.JobCompletionIndexAnnotation]; i == "0" || i == "2" {
				w.end(p, corev1.PodFailed)
			}
		}
		if crash {
			for len(w.active(job)) > 0 {
				w.deliver()
				w.sync()
			}
			w.boot(0, 0)
		}
		w.settle()
		status := w.job("job").Status
		if !isTrue(status.Conditions, batchv1.JobFailed) || status.Failed != 4 || ptr.Deref(status.FailedIndexes, "") != "0,2" {
			t.Errorf("with a crash: %t: failed %d, failedIndexes %q, %+v", crash, status.Failed, ptr.Deref(status.FailedIndexes, ""), status.Conditions)
		}
	}
}
