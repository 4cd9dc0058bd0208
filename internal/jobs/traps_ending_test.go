package jobs

import (
	"errors"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// A Job that fails while the informer hasn't shown its pods yet: none keeps the finalizer, and none is missing in the status.
func TestKK109485_KK109486_KK119159_KK119833_EarlyFinish(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").completions(50).parallelism(50).limit(0).obj())
	for w.deliverJobs() {
	}
	for w.sync() { // creates 50 pods that the informer doesn't show
	}
	w.end(w.active(job)[7], corev1.PodFailed)
	for range 8 { // one failure is seen before the other pods are
		w.deliverPods()
	}
	for w.podsAt < len(w.api.log) && !isTrue(w.job("job").Status.Conditions, batchv1.JobFailureTarget) {
		w.deliverPods()
		for w.sync() {
		}
	}
	w.settle()
	for _, p := range w.api.podsOf(job) {
		if alive(p) {
			w.end(p, corev1.PodFailed)
		}
	}
	w.settle()
	status := w.job("job").Status
	if !isTrue(status.Conditions, batchv1.JobFailed) || status.Failed != 50 {
		t.Errorf("failed %d, %+v", status.Failed, status.Conditions)
	}
	for _, p := range w.api.podsOf(nil) {
		if isTracked(p) {
			t.Errorf("%s keeps its finalizer", p.Name)
		}
	}
}

// The Job is deleted while its pod is being created: the pod doesn't keep the finalizer.
func TestKK109429_DeleteRace(t *testing.T) {
	w := newWorld(t)
	w.create(makeJob("job").obj())
	w.api.hook = func(verb, _, _ string) fault {
		if verb == "create" {
			w.api.mu.Lock()
			_ = w.api.deleteJob("default", "job", metav1.DeleteOptions{})
			w.api.mu.Unlock()
		}
		return fault{}
	}
	w.settle()
	for _, p := range w.api.podsOf(nil) {
		if isTracked(p) {
			t.Errorf("%s keeps its finalizer", p.Name)
		}
	}
}

// Pods whose Job is gone lose the finalizer, whether they are being deleted or not, and also after a restart that has never seen the Job.
func TestKK108645_KK108752_OrphansBlockTheNamespace(t *testing.T) {
	for _, restart := range []bool{false, true} {
		w := newWorld(t)
		job := w.create(makeJob("job").completions(3).parallelism(3).obj())
		w.settle()
		pods := w.active(job)
		w.end(pods[0], corev1.PodSucceeded) // ended, and nobody has time to count it
		w.running(pods[1])
		w.api.mu.Lock()
		_ = w.api.deletePod("default", pods[1].Name, metav1.DeleteOptions{})
		_ = w.api.deleteJob("default", "job", metav1.DeleteOptions{})
		w.api.mu.Unlock()
		if restart {
			w.boot(0, 0)
		}
		w.settle()
		for _, p := range w.api.podsOf(nil) {
			if isTracked(p) {
				t.Errorf("restart %v: %s keeps its finalizer", restart, p.Name)
			}
		}
	}
}

// A pod that nothing controls any more (kubectl delete --cascade=orphan) loses the finalizer.
func TestKK108752_PodWithoutOwner(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").obj())
	w.settle()
	w.api.editJob("default", "job", func(j *batchv1.Job) {
		j.DeletionTimestamp, j.Finalizers = ptr.To(w.api.now()), []string{metav1.FinalizerOrphanDependents}
	})
	w.api.setPod("default", w.api.podsOf(job)[0].Name, func(p *corev1.Pod) { p.OwnerReferences = nil })
	w.settle()
	if p := w.api.podsOf(nil)[0]; isTracked(p) || p.DeletionTimestamp != nil {
		t.Errorf("tracked %v, deleted %v", isTracked(p), p.DeletionTimestamp != nil)
	}
}

// All orphans of a Job are cleaned up in one go, without asking for the Job each time.
func TestKK126566_OrphansOneByOne(t *testing.T) {
	w := newWorld(t)
	w.create(makeJob("job").completions(200).parallelism(200).obj())
	w.settle()
	w.api.mu.Lock()
	_ = w.api.deleteJob("default", "job", metav1.DeleteOptions{})
	w.api.mu.Unlock()
	w.deliver()
	before := w.api.calls["get jobs"]
	syncs := 0
	for w.sync() {
		syncs++
	}
	if got := w.api.calls["patch pods"]; got != 200 || syncs > 2 || w.api.calls["get jobs"] != before {
		t.Errorf("%d patches in %d syncs with %d reads", got, syncs, w.api.calls["get jobs"]-before)
	}
}

// Complete and Failed come only after every pod has really ended.
func TestKK123775_TerminalBeforePodsEnded(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").completions(3).parallelism(3).limit(0).obj())
	w.settle()
	pods := w.active(job)
	for _, p := range pods {
		w.running(p)
	}
	w.end(pods[0], corev1.PodFailed)
	w.settle()
	status := w.job("job").Status
	if !isTrue(status.Conditions, batchv1.JobFailureTarget) || isFinished(w.job("job")) || *status.Terminating != 2 || status.Active != 0 {
		t.Fatalf("status %+v", status)
	}
	w.end(pods[1], corev1.PodFailed)
	w.settle()
	if isFinished(w.job("job")) {
		t.Fatal("finished while a pod terminates")
	}
	w.end(pods[2], corev1.PodFailed)
	w.settle()
	if !isTrue(w.job("job").Status.Conditions, batchv1.JobFailed) {
		t.Errorf("conditions %+v", w.job("job").Status.Conditions)
	}
}

// While a failure delays the next pod, the status tells of those that run, and the failed one is counted.
func TestKK139457_ActiveDuringBackoff(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").completions(3).parallelism(2).obj())
	w.settle()
	pods := w.active(job)
	w.running(pods[0])
	w.end(pods[1], corev1.PodFailed)
	w.settle()
	status := w.job("job").Status
	if status.Active != 1 || *status.Ready != 1 || status.Failed != 1 {
		t.Errorf("status %+v", status)
	}
}

// Deleted and created again under the same name, in the middle of a sync: the new Job runs.
func TestKK142142_RecreatedUnderTheSameName(t *testing.T) {
	w := newWorld(t)
	w.create(makeJob("job").obj())
	replaced := false
	w.api.hook = func(verb, _, _ string) fault {
		if verb == "updateStatus" && !replaced {
			replaced = true
			w.api.mu.Lock()
			_ = w.api.deleteJob("default", "job", metav1.DeleteOptions{})
			w.api.mu.Unlock()
			w.create(makeJob("job").obj())
		}
		return fault{}
	}
	w.settle()
	job := w.job("job")
	if len(w.api.podsOf(job)) != 1 || job.Status.Active != 1 {
		t.Errorf("%d pods, status %+v", len(w.api.podsOf(job)), job.Status)
	}
}

// A namespace that is being deleted refuses new pods: no storm, no event, and nothing keeps a finalizer that would hold the namespace.
func TestNamespaceTerminating(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").completions(4).parallelism(2).obj())
	w.settle()
	w.api.terminating["default"] = true
	for _, p := range w.active(job) {
		w.running(p)
		w.api.mu.Lock()
		_ = w.api.deletePod("default", p.Name, metav1.DeleteOptions{})
		w.api.mu.Unlock()
	}
	w.pass(time.Minute)
	for _, p := range w.api.podsOf(nil) {
		if isTracked(p) {
			t.Errorf("%s keeps its finalizer", p.Name)
		}
		w.end(p, corev1.PodFailed)
	}
	w.pass(time.Hour)
	if left := w.api.podsOf(nil); len(left) > 0 {
		t.Errorf("%d pods are left", len(left))
	}
	if got := w.api.calls["create pods"]; got != 3 {
		t.Errorf("%d tries to create", got-2)
	}
	for _, reason := range w.events.reasons() {
		if reason == "FailedCreate" {
			t.Error("an event about what nobody can change")
		}
	}
}

// The API refuses a finished Job without startTime and an end before the start: a suspended Job that fails, and a clock that was set back.
func TestStatusRules(t *testing.T) {
	w := newWorld(t)
	w.create(makeJob("job").obj())
	w.settle()
	w.clock.SetTime(epoch.Add(-time.Hour))
	w.endAll(w.job("job"), corev1.PodSucceeded)
	w.settle()
	if !isFinished(w.job("job")) {
		t.Error("not finished after the clock was set back")
	}

	w = newWorld(t)
	job := w.create(makeJob("job").completions(2).parallelism(2).limit(0).obj())
	w.settle()
	w.end(w.active(job)[0], corev1.PodFailed)
	w.api.editJob("default", "job", func(j *batchv1.Job) { *j.Spec.Suspend = true })
	w.api.hook = func(verb, _, _ string) fault {
		if verb == "patch" && !isTrue(w.job("job").Status.Conditions, batchv1.JobFailureTarget) {
			return fault{err: errors.New("not now")}
		}
		return fault{}
	}
	w.pass(time.Minute)
	w.endAll(job, corev1.PodFailed)
	w.pass(time.Minute)
	if !isFinished(w.job("job")) {
		t.Errorf("status %+v", w.job("job").Status)
	}
}
