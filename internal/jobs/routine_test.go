package jobs

import (
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/record"
)

// recorded is what of the world's events reaches the API by way of client-go's recorder.
func recorded(t *testing.T, w *world) (reasons map[string]int) {
	t.Helper()
	recorder := record.NewEventCorrelator(w.clock)
	reasons = map[string]int{}
	for _, line := range w.events.lines {
		parts := strings.SplitN(line, " ", 3)
		result, err := recorder.EventCorrelate(&corev1.Event{
			Source: corev1.EventSource{Component: component}, InvolvedObject: corev1.ObjectReference{Kind: "Job", Namespace: "default", Name: "j", UID: "u"},
			Type: parts[0], Reason: parts[1], Message: parts[2],
		})
		if err != nil {
			t.Fatal(err)
		}
		if !result.Skip {
			reasons[parts[1]]++
		}
	}
	return reasons
}

// However many pods a Job has, its events tell how it went on.
func TestEventsOfALargeJobTellItsEnd(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("j").completions(100).parallelism(100).obj())
	w.settle()
	for _, suspended := range []bool{true, false} {
		w.api.editJob("default", "j", func(j *batchv1.Job) { j.Spec.Suspend = &suspended })
		w.settle()
	}
	w.endAll(job, corev1.PodSucceeded)
	w.settle()
	got := recorded(t, w)
	if got["SuccessfulCreate"] == 0 || got["Suspended"] != 1 || got["Resumed"] != 1 || got["Completed"] != 1 {
		t.Errorf("told: %v", got)
	}
}

// Pods that come slowly are told of for as long as the Job lives.
func TestEventsOfALongJobGoOn(t *testing.T) {
	w := newWorld(t)
	job := w.create(makeJob("j").completions(100).parallelism(1).obj())
	for range 100 {
		w.settle()
		w.clock.SetTime(w.clock.Now().Add(10 * time.Minute))
		w.endAll(job, corev1.PodSucceeded)
	}
	w.settle()
	created := 0
	for _, reason := range w.events.reasons() {
		if reason == "SuccessfulCreate" {
			created++
		}
	}
	if created != 100 {
		t.Errorf("%d of 100 pods were told of", created)
	}
}
