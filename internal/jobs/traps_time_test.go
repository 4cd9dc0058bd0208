package jobs

import (
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func (w *world) suspend(on bool) {
	w.api.editJob("default", "job", func(j *batchv1.Job) { *j.Spec.Suspend = on })
	w.settle()
}

// A resumed Job starts anew, also one that an older controller suspended without taking its start time away.
func TestKK134521_StartTimeOnResume(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").suspended().status(func(s *batchv1.JobStatus) {
		s.Conditions = []batchv1.JobCondition{cond(batchv1.JobSuspended, "JobSuspended", "Job suspended")}
		s.StartTime = &metav1.Time{Time: epoch.Add(-time.Hour)}
	}).obj())
	w.settle()
	w.clock.SetTime(epoch.Add(time.Minute))
	w.suspend(false)
	status := w.job("job").Status
	if !status.StartTime.Equal(&metav1.Time{Time: epoch.Add(time.Minute)}) || len(w.active(job)) != 1 {
		t.Errorf("status %+v", status)
	}
}

// A suspended Job has no start time, so that the API server lets its scheduling directives be changed.
func TestKK139287_DirectivesOfASuspendedJob(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").completions(2).parallelism(2).obj())
	w.settle()
	for _, p := range w.active(job) {
		w.running(p)
	}
	w.settle()
	w.suspend(true)
	status := w.job("job").Status
	if status.StartTime != nil || status.Active != 0 || *status.Terminating != 2 || !isTrue(status.Conditions, batchv1.JobSuspended) {
		t.Errorf("status %+v", status)
	}
	if status.Failed != 0 {
		t.Error("suspended pods count as failed")
	}
}

// A deadline stays in force whatever else wakes the Job up before it.
func TestKK107226_DeadlineLostAfterAnotherSync(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").deadline(10).obj())
	w.settle()
	w.pass(4 * time.Second)
	w.running(w.active(job)[0])
	w.pass(5 * time.Second)
	if isTrue(w.job("job").Status.Conditions, batchv1.JobFailureTarget) {
		t.Fatal("failed early")
	}
	w.pass(time.Second)
	if !isTrue(w.job("job").Status.Conditions, batchv1.JobFailureTarget) {
		t.Error("not failed at its deadline")
	}
}

func TestKK62134_DeadlineAcrossARestart(t *testing.T) {
	w := newWorld(t)
	w.create(makeJob("job").deadline(10).obj())
	w.settle()
	w.pass(4 * time.Second)
	w.boot(0, 0)
	w.pass(6 * time.Second)
	if !isTrue(w.job("job").Status.Conditions, batchv1.JobFailureTarget) {
		t.Error("not failed at its deadline")
	}
}

// The deadline of a Job that was deleted isn't that of one created under its name.
func TestKK90550_DeadlineOfARecreatedJob(t *testing.T) {
	w := newWorld(t)
	w.create(makeJob("job").deadline(10).obj())
	w.settle()
	w.pass(8 * time.Second)
	w.api.mu.Lock()
	_ = w.api.deleteJob("default", "job", metav1.DeleteOptions{})
	w.api.mu.Unlock()
	w.create(makeJob("job").deadline(10).obj())
	w.settle()
	w.pass(9 * time.Second)
	if isTrue(w.job("job").Status.Conditions, batchv1.JobFailureTarget) {
		t.Error("the new Job failed at the old one's deadline")
	}
	w.pass(time.Second)
	if !isTrue(w.job("job").Status.Conditions, batchv1.JobFailureTarget) {
		t.Error("the new Job has no deadline")
	}
}

// Time spent suspended doesn't count towards the deadline.
func TestDeadlineWhileSuspended(t *testing.T) {
	w := newWorld(t)
	w.create(makeJob("job").deadline(10).obj())
	w.settle()
	w.pass(8 * time.Second)
	w.suspend(true)
	w.pass(time.Hour)
	w.suspend(false)
	w.pass(9 * time.Second)
	if isTrue(w.job("job").Status.Conditions, batchv1.JobFailureTarget) {
		t.Fatal("failed early")
	}
	w.pass(time.Second)
	if !isTrue(w.job("job").Status.Conditions, batchv1.JobFailureTarget) {
		t.Error("not failed at its deadline")
	}
}

// The deadline isn't early because the API keeps only whole seconds of the start.
func TestDeadlineOfASecond(t *testing.T) {
	w := newWorld(t)
	w.clock.SetTime(epoch.Add(900 * time.Millisecond))
	w.create(makeJob("job").deadline(1).obj())
	w.settle()
	w.pass(999 * time.Millisecond)
	if isTrue(w.job("job").Status.Conditions, batchv1.JobFailureTarget) {
		t.Error("failed after less than its second")
	}
}

// failures lets the Job's pod fail n times, waiting out each delay.
func (w *world) failures(job *batchv1.Job, n int) {
	for range n {
		w.settle()
		w.endAll(job, corev1.PodFailed)
		w.pass(10 * time.Minute)
	}
}

// nextPodIn returns how long it takes, to the second, until the Job has an active pod.
func (w *world) nextPodIn(job *batchv1.Job) time.Duration {
	w.t.Helper()
	w.settle()
	for s := range 1000 {
		if len(w.active(job)) > 0 {
			return time.Duration(s) * time.Second
		}
		w.pass(time.Second)
	}
	w.t.Fatal("no pod")
	return 0
}

// The delay grows with each failure and isn't forgotten by a restart.
func TestKK114650_BackoffForgottenOnRestart(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").obj())
	w.failures(job, 2)
	w.endAll(job, corev1.PodFailed) // the third
	w.settle()
	w.boot(0, 0)
	if got := w.nextPodIn(job); got != 40*time.Second {
		t.Errorf("the third replacement came after %v", got)
	}
}

// The first failure delays, and that its finalizer is removed doesn't take the delay away.
func TestKK114516_BackoffRegressedToZero(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").completions(4).parallelism(2).obj())
	w.settle()
	pods := w.active(job)
	w.end(pods[0], corev1.PodFailed)
	w.settle()
	if got := len(w.active(job)); got != 1 {
		t.Fatalf("%d active right after a failure", got)
	}
	for range 3 {
		w.pass(3 * time.Second)
		w.running(pods[1]) // something else happens
	}
	if got := len(w.active(job)); got != 1 {
		t.Fatalf("%d active after 9 s", got)
	}
	w.pass(time.Second)
	if got := len(w.active(job)); got != 2 {
		t.Errorf("%d active after 10 s", got)
	}
}

// 10 s, doubling; reset by a success.
func TestBackoffSequence(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").completions(2).limit(9).obj())
	w.settle()
	for _, want := range []time.Duration{10, 20, 40, 80, 160, 320, 600} {
		w.endAll(job, corev1.PodFailed)
		if got := w.nextPodIn(job); got != want*time.Second {
			t.Errorf("waited %v, want %ds", got, want)
		}
	}
	w.pass(time.Second)
	w.endAll(job, corev1.PodSucceeded)
	w.settle()
	w.pass(time.Second)
	w.endAll(job, corev1.PodFailed)
	if got := w.nextPodIn(job); got != 10*time.Second {
		t.Errorf("waited %v after a success", got)
	}
}

// With podReplacementPolicy Failed a terminating pod isn't replaced before it has ended.
func TestKK115844_ReplacedTooEarly(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").replaceFailedOnly().obj())
	w.settle()
	pod := w.active(job)[0]
	w.running(pod)
	w.settle()
	w.api.mu.Lock()
	_ = w.api.deletePod("default", pod.Name, metav1.DeleteOptions{})
	w.api.mu.Unlock()
	w.pass(time.Hour)
	if status := w.job("job").Status; len(w.active(job)) != 0 || *status.Terminating != 1 || status.Failed != 0 {
		t.Fatalf("status %+v", status)
	}
	w.end(pod, corev1.PodFailed)
	if got := w.nextPodIn(job); got != 10*time.Second {
		t.Errorf("replaced after %v", got)
	}
	if status := w.job("job").Status; status.Failed != 1 {
		t.Errorf("status %+v", status)
	}
}

// ready and terminating are right in the very write that follows the deletion of pods.
func TestKK125089_KK125185_CountedLate(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").completions(5).parallelism(3).obj())
	w.settle()
	for _, p := range w.active(job) {
		w.running(p)
	}
	w.settle()
	var first *batchv1.JobStatus
	w.api.wrote = func(_, obj any) {
		if j, ok := obj.(*batchv1.Job); ok && j.Status.Active < 3 && first == nil {
			first = &j.Status
		}
	}
	w.api.editJob("default", "job", func(j *batchv1.Job) { *j.Spec.Parallelism = 1 })
	w.settle()
	if first == nil || first.Active != 1 || *first.Ready != 1 || *first.Terminating != 2 {
		t.Errorf("status %+v", first)
	}
}

// A Job whose end lies in the future (the clock was set back) is kept for its whole TTL, and a clock set forward deletes nothing early.
func TestTTLAndClockJumps(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").ttl(100).obj())
	w.settle()
	w.endAll(job, corev1.PodSucceeded)
	w.settle()
	started := w.clock.Now()
	offset := time.Duration(0)
	w.engine.reaper.stopwatch = func() time.Duration { return w.clock.Now().Sub(started) - offset }
	w.engine.reaper.forget(job.UID)
	w.engine.reaper.observe(w.job("job"), fromInformer)

	offset = time.Hour
	w.clock.SetTime(w.clock.Now().Add(offset)) // a jump, not time
	w.fire()
	if w.job("job").DeletionTimestamp != nil {
		t.Fatal("deleted by a clock set forward")
	}
	w.pass(99 * time.Second)
	if w.job("job").DeletionTimestamp != nil {
		t.Fatal("deleted early")
	}
	w.pass(time.Second)
	if w.job("job").DeletionTimestamp == nil {
		t.Error("not deleted after its TTL")
	}
}

// TTL 0 is at once; a TTL taken away in the last moment is respected; and the Job that is deleted is that very one.
func TestTTLZeroAndEdits(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job").ttl(0).obj())
	w.settle()
	w.endAll(job, corev1.PodSucceeded)
	w.settle()
	if j := w.job("job"); j.DeletionTimestamp == nil {
		t.Error("not deleted at once")
	}

	w = newWorld(t)
	job = w.create(makeJob("job").ttl(10).obj())
	w.settle()
	w.endAll(job, corev1.PodSucceeded)
	w.settle()
	w.clock.SetTime(w.clock.Now().Add(time.Minute))
	w.api.editJob("default", "job", func(j *batchv1.Job) { j.Spec.TTLSecondsAfterFinished = nil }) // the informer doesn't know yet
	w.fire()
	w.settle()
	if w.job("job").DeletionTimestamp != nil {
		t.Error("deleted though its TTL was taken away")
	}
}
