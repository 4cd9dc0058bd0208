package jobs

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// The seed's Job: suspended at first, then resumed; two pods; events in kubectl's order.
func TestSeedTranscript(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("job-echo").completions(2).parallelism(2).limit(4).ttl(100).suspended().obj())
	w.settle()
	if diff := cmp.Diff([]string{"Normal Suspended Job suspended"}, w.events.lines); diff != "" {
		t.Fatal(diff)
	}
	if got := w.job("job-echo").Status; got.StartTime != nil || got.Active != 0 {
		t.Fatalf("a suspended Job has status %+v", got)
	}
	w.clock.SetTime(epoch.Add(5 * time.Minute))
	w.api.editJob("default", "job-echo", func(j *batchv1.Job) { *j.Spec.Suspend = false })
	w.settle()
	w.clock.SetTime(epoch.Add(5*time.Minute + 3*time.Second))
	w.endAll(job, corev1.PodSucceeded)
	w.settle()

	names := namesFor(job)
	want := []string{
		"Normal Suspended Job suspended",
		"Normal SuccessfulCreate Created pod: " + names.at(0),
		"Normal SuccessfulCreate Created pod: " + names.at(1),
		"Normal Resumed Job resumed",
		"Normal Completed Job completed",
	}
	if diff := cmp.Diff(want, w.events.lines); diff != "" {
		t.Fatal(diff)
	}
	status := w.job("job-echo").Status
	if status.Succeeded != 2 || status.Active != 0 || status.CompletionTime.Sub(status.StartTime.Time) != 3*time.Second {
		t.Fatalf("status %+v", status)
	}
	for _, pod := range w.api.podsOf(nil) {
		if isTracked(pod) {
			t.Errorf("pod %s keeps the finalizer", pod.Name)
		}
	}
	w.pass(99 * time.Second)
	w.job("job-echo")
	w.pass(time.Second)
	if w.job("job-echo").DeletionTimestamp == nil {
		t.Error("not deleted after its TTL")
	}
}

// How few writes a Job of one pod takes: see the package comment.
func TestWritesOfAOnePodJob(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("one").obj())
	w.settle()
	w.endAll(job, corev1.PodSucceeded)
	w.settle()
	want := map[string]int{"create pods": 1, "updateStatus jobs": 3, "patch pods": 1}
	if diff := cmp.Diff(want, w.api.calls); diff != "" {
		t.Error(diff)
	}
	if !isFinished(w.job("one")) {
		t.Error("not finished")
	}
}
