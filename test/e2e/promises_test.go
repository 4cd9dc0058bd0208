//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
	watchtools "k8s.io/client-go/tools/watch"
	"k8s.io/utils/ptr"
)

// A Job's promises on a machine where nothing breaks.
func TestPromises(t *testing.T) {
	e := start(t)

	t.Run("four completions, three at a time", func(t *testing.T) {
		e := e.with(t)
		g := newGate(t)
		seen := e.follow("three-then-one")
		e.apply(job("three-then-one", passGate, "completions: 4", "parallelism: 3") + g.mount())
		e.wait("jsonpath={.status.ready}=3", "job/three-then-one")
		if n := len(e.pods("three-then-one")); n != 3 {
			t.Errorf("there are %d pods before any has ended", n)
		}
		g.open(3)
		e.until("three-then-one", func(j *batchv1.Job) bool { return j.Status.Succeeded == 3 && ptr.Deref(j.Status.Ready, 0) == 1 })
		g.open(1)
		e.wait("condition=complete", "job/three-then-one")
		if n := len(e.pods("three-then-one")); n != 4 {
			t.Errorf("it took %d pods", n)
		}
		wantThreeThenOne(t, <-seen)
	})

	t.Run("suspend while running", func(t *testing.T) {
		e := e.with(t)
		e.apply(job("paused", "sleep 3600", "completions: 2", "parallelism: 2"))
		e.wait("jsonpath={.status.ready}=2", "job/paused")
		e.kubectl("patch", "job/paused", "--patch", `{"spec":{"suspend":true}}`)
		e.wait("condition=Suspended", "job/paused")
		e.wait("delete", "pod", "-l", "batch.kubernetes.io/job-name=paused")
		if start := e.kubectl("get", "job", "paused", "-o", "jsonpath={.status.startTime}"); start != "" {
			t.Errorf("a suspended Job has the start time %s", start)
		}
		e.kubectl("patch", "job/paused", "--patch", `{"spec":{"suspend":false}}`)
		e.wait("jsonpath={.status.ready}=2", "job/paused")
		wantReasons(t, e.eventReasons("paused"), "SuccessfulCreate", "SuccessfulCreate", "SuccessfulDelete", "SuccessfulDelete", "Suspended", "SuccessfulCreate", "SuccessfulCreate", "Resumed")
		e.kubectl("delete", "job", "paused")
		e.wait("delete", "pod", "-l", "batch.kubernetes.io/job-name=paused")
	})

	t.Run("a pod deleted by hand is replaced", func(t *testing.T) {
		e := e.with(t)
		e.apply(job("replaced", "sleep 3600"))
		e.wait("jsonpath={.status.ready}=1", "job/replaced")
		first := e.pods("replaced")[0].Name
		e.kubectl("delete", "pod", first)
		// It has gone, but the Job's status may still count it.
		second := e.podBesides("replaced", first)
		e.wait("condition=Ready", "pod/"+second)
		e.kubectl("delete", "job", "replaced", "--cascade=foreground")
	})

	t.Run("TTL 0", func(t *testing.T) {
		e := e.with(t)
		e.apply(job("brief", "true", "ttlSecondsAfterFinished: 0"))
		e.wait("delete", "job/brief")
		e.wait("delete", "pod", "-l", "batch.kubernetes.io/job-name=brief")
	})

	t.Run("a Job that fails", func(t *testing.T) {
		e := e.with(t)
		e.apply(job("fails", "echo about to fail >&2; exit 3", "backoffLimit: 0"))
		e.wait("condition=failed", "job/fails")
		wantLines(t, e.kubectl("get", "job", "fails"), `
			NAME    STATUS   COMPLETIONS   DURATION   AGE
			fails   Failed   0/1           <age>      <age>`)
		reason := e.kubectl("get", "job", "fails", "-o", `jsonpath={.status.conditions[?(@.type=="Failed")].reason}`)
		if reason != "BackoffLimitExceeded" {
			t.Errorf("it failed for the reason %q", reason)
		}
		wantReasons(t, e.eventReasons("fails"), "SuccessfulCreate", "BackoffLimitExceeded")
		wantLines(t, e.kubectl("logs", "job/fails"), "about to fail")
		state := e.pods("fails")[0].Status.ContainerStatuses[0].State.Terminated
		if state == nil || state.ExitCode != 3 || state.Reason != "Error" {
			t.Errorf("its container's end is %+v", state)
		}
	})

	t.Run("OnFailure restarts in place", func(t *testing.T) {
		e := e.with(t)
		manifest := strings.Replace(job("restarts", "echo try; exit 1", "backoffLimit: 1"), "Never", "OnFailure", 1)
		e.apply(manifest)
		e.wait("condition=failed", "job/restarts")
		reason := e.kubectl("get", "job", "restarts", "-o", `jsonpath={.status.conditions[?(@.type=="Failed")].reason}`)
		if reason != "BackoffLimitExceeded" {
			t.Errorf("it failed for the reason %q", reason)
		}
	})

	t.Run("activeDeadlineSeconds", func(t *testing.T) {
		e := e.with(t)
		e.apply(job("late", "sleep 3600", "activeDeadlineSeconds: 1"))
		e.wait("condition=failed", "job/late")
		reason := e.kubectl("get", "job", "late", "-o", `jsonpath={.status.conditions[?(@.type=="Failed")].reason}`)
		if reason != "DeadlineExceeded" {
			t.Errorf("it failed for the reason %q", reason)
		}
	})

	t.Run("the namespace goes with all in it", func(t *testing.T) {
		e := e.with(t)
		e.kubectl("create", "namespace", "leaving")
		e.kubectlIn(job("busy", "sleep 3600", "parallelism: 2"), "apply", "-n", "leaving", "-f", "-")
		e.wait("jsonpath={.status.ready}=2", "job/busy", "-n", "leaving")
		e.kubectl("delete", "namespace", "leaving")
	})
}

// wantThreeThenOne looks at a Job of four completions, three at a time, from
// its creation to its end: of the four, the first three run at once, and the
// last, which takes the place of the first that ends, at last alone.
func wantThreeThenOne(t *testing.T, statuses []batchv1.JobStatus) {
	t.Helper()
	var seen []string
	for _, s := range statuses {
		// A pod that has ended is first listed, then counted.
		succeeded := s.Succeeded
		if u := s.UncountedTerminatedPods; u != nil {
			succeeded += int32(len(u.Succeeded))
		}
		if s.Active > 3 || s.Active+succeeded > 4 || s.Failed > 0 {
			t.Errorf("it had %d active, %d succeeded and %d failed pods", s.Active, succeeded, s.Failed)
		}
		seen = append(seen, fmt.Sprintf("%d active, %d succeeded", s.Active, succeeded))
	}
	seen = slices.Compact(seen)
	begin, end := []string{"0 active, 0 succeeded", "3 active, 0 succeeded"}, []string{"1 active, 3 succeeded", "0 active, 4 succeeded"}
	if len(seen) < 4 || !slices.Equal(seen[:2], begin) || !slices.Equal(seen[len(seen)-2:], end) {
		t.Errorf("its status was, one after the other, %q; want it to begin with %q and to end with %q", seen, begin, end)
	}
}

// follow watches a Job that is yet to be created, until its end: then it tells
// each status that the Job had.
func (e *errand) follow(name string) <-chan []batchv1.JobStatus {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), patience)
	// Once this returns, the server watches.
	w, err := e.client.BatchV1().Jobs("default").Watch(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String()})
	if err != nil {
		cancel()
		e.t.Fatal(err)
	}
	result := make(chan []batchv1.JobStatus, 1)
	go func() {
		defer cancel()
		defer w.Stop()
		var seen []batchv1.JobStatus
		for ev := range w.ResultChan() {
			j, ok := ev.Object.(*batchv1.Job)
			if !ok {
				break
			}
			if seen = append(seen, j.Status); finished(j) {
				break
			}
		}
		result <- seen
	}()
	return result
}

// podBesides waits for a pod of a Job besides the one named, and returns its
// name.
func (e *errand) podBesides(job, other string) string {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), patience)
	defer cancel()
	w, err := e.client.CoreV1().Pods("default").Watch(ctx, metav1.ListOptions{LabelSelector: batchv1.JobNameLabel + "=" + job})
	if err != nil {
		e.t.Fatal(err)
	}
	defer w.Stop()
	for ev := range w.ResultChan() {
		if p, ok := ev.Object.(*v1.Pod); ok && p.Name != other && ev.Type != watch.Deleted {
			return p.Name
		}
	}
	e.t.Fatalf("Job %s has no pod besides %s: %v", job, other, ctx.Err())
	return ""
}

// pods are the pods of a Job that nobody has deleted.
func (e *errand) pods(job string) []v1.Pod {
	e.t.Helper()
	list, err := e.client.CoreV1().Pods("default").List(e.t.Context(), metav1.ListOptions{LabelSelector: batchv1.JobNameLabel + "=" + job})
	if err != nil {
		e.t.Fatal(err)
	}
	return slices.DeleteFunc(list.Items, func(p v1.Pod) bool { return p.DeletionTimestamp != nil })
}

// eventReasons are the reasons of a Job's events in the order in which they
// happened, a reason as often as it did.
func (e *errand) eventReasons(job string) []string {
	e.t.Helper()
	list, err := e.client.CoreV1().Events("default").List(e.t.Context(), metav1.ListOptions{
		FieldSelector: fields.Set{"involvedObject.kind": "Job", "involvedObject.name": job}.String(),
	})
	if err != nil {
		e.t.Fatal(err)
	}
	// An event's name ends with the nanosecond of its creation, in hexadecimal;
	// its time stamps are of whole seconds.
	slices.SortFunc(list.Items, func(a, b v1.Event) int { return strings.Compare(a.Name, b.Name) })
	var reasons []string
	for _, ev := range list.Items {
		for range max(ev.Count, 1) {
			reasons = append(reasons, ev.Reason)
		}
	}
	return reasons
}

func wantReasons(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("the events' reasons are, in order, %q, want %q", got, want)
	}
}

// until watches a Job until ok says so, and returns it.
func (e *errand) until(name string, ok func(*batchv1.Job) bool) *batchv1.Job {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), 3*patience)
	defer cancel()
	lw := jobListWatch{e.client.BatchV1().Jobs("default"), fields.OneTermEqualSelector("metadata.name", name).String()}
	ev, err := watchtools.UntilWithSync(ctx, lw, &batchv1.Job{}, nil, func(ev watch.Event) (bool, error) {
		j, isJob := ev.Object.(*batchv1.Job)
		if !isJob || ev.Type == watch.Deleted {
			return false, fmt.Errorf("the Job went: %s %T", ev.Type, ev.Object)
		}
		return ok(j), nil
	})
	if err != nil {
		e.t.Fatalf("wait for job %s: %v", name, err)
	}
	return ev.Object.(*batchv1.Job)
}
