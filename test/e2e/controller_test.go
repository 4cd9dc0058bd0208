//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
)

// quick are lease times with which tests needn't wait for long.
var quick = []string{"--leader-elect-lease-duration=2s", "--leader-elect-renew-deadline=1500ms", "--leader-elect-retry-period=200ms"}

// foreign is a Job that errand serve leaves to errand controller.
func foreign(name string, completions int) string {
	return job(name, "true", "managedBy: errand.dev/job-controller", fmt.Sprintf("completions: %d", completions), "parallelism: 6", "backoffLimit: 1000")
}

// errand controller runs the Jobs of a cluster that leaves them to it.
func TestController(t *testing.T) {
	e := start(t, "--node=false")
	c := e.controller("a")
	c.awaitLead()
	p := e.play("foreign")
	p.let(1000)
	e.apply(foreign("foreign", 8))
	p.wantExact(e.until("foreign", finished))
	e.awaitCompleted() // which is said after it was counted
	for _, path := range []string{"/healthz", "/readyz"} {
		if code, body := c.get(path); code != http.StatusOK {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	_, metrics := c.get("/metrics")
	for _, want := range []string{
		`job_controller_jobs_finished_total{completion_mode="NonIndexed",reason="CompletionsReached",result="succeeded"} 1`,
		`leader_election_master_status{name="errand-controller"} 1`,
		`rest_client_requests_total{`, `process_resident_memory_bytes`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("its metrics lack %s", want)
		}
	}
	c.signal(syscall.SIGTERM)
	if code := c.ended(); code != 0 {
		t.Errorf("it ended with %d", code)
	}
}

// awaitCompleted waits for the event that says so of some Job.
func (e *errand) awaitCompleted() {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), patience)
	defer cancel()
	w, err := e.client.CoreV1().Events("default").Watch(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("reason", "Completed").String()})
	if err != nil {
		e.t.Fatal(err)
	}
	defer w.Stop()
	if _, ok := <-w.ResultChan(); !ok {
		e.t.Fatal("no event says that the Job has completed")
	}
}

// A leader that is asked to end hands over at once, in the middle of a Job.
func TestControllerHandsOver(t *testing.T) {
	e := start(t, "--node=false")
	a := e.controller("a")
	a.awaitLead()
	b := e.controller("b")
	b.awaitReady()
	p := e.play("handed")
	e.apply(foreign("handed", 40))
	p.let(20)
	e.until("handed", func(j *batchv1.Job) bool { return j.Status.Succeeded >= 8 })
	began := time.Now()
	a.signal(syscall.SIGTERM)
	b.awaitLead()
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("the hand-over took %s", took)
	} else {
		t.Logf("the hand-over took %s", took.Round(time.Millisecond))
	}
	if code := a.ended(); code != 0 {
		t.Errorf("the first ended with %d", code)
	}
	p.let(1000)
	p.wantExact(e.until("handed", finished))
}

// A leader that dies is followed once its lease has expired.
func TestControllerIsKilled(t *testing.T) {
	e := start(t, "--node=false")
	a := e.controller("a", quick...)
	a.awaitLead()
	b := e.controller("b", quick...)
	b.awaitReady()
	p := e.play("orphaned")
	e.apply(foreign("orphaned", 40))
	p.let(20)
	e.until("orphaned", func(j *batchv1.Job) bool { return j.Status.Succeeded >= 8 })
	began := time.Now()
	a.signal(syscall.SIGKILL)
	a.ended()
	p.let(1000) // pods end while nobody looks
	b.awaitLead()
	t.Logf("it was followed after %s", time.Since(began).Round(time.Millisecond))
	p.wantExact(e.until("orphaned", finished))
}

// sleeps is how often a leader is stopped while one Job runs.
const sleeps = 4

// A leader that is stopped, and woken once another acts in its place, ends
// without doing anything twice; and so does the next.
func TestControllerSleeps(t *testing.T) {
	e := start(t, "--node=false")
	leader := e.controller("0", quick...)
	leader.awaitLead()
	p := e.play("slept-on")
	e.apply(foreign("slept-on", 40*(sleeps+1)))
	for i := range sleeps {
		next := e.controller(fmt.Sprint(i+1), quick...)
		next.awaitReady()
		p.let(30)
		e.until("slept-on", func(j *batchv1.Job) bool { return j.Status.Succeeded > int32(40*i) })
		// In the middle of something: pods end, and are replaced and counted.
		leader.signal(syscall.SIGSTOP)
		p.let(10)
		next.awaitLead()
		p.let(10)
		e.until("slept-on", func(j *batchv1.Job) bool { return j.Status.Succeeded > int32(40*i+20) })
		woken := time.Now()
		leader.signal(syscall.SIGCONT)
		if code := leader.ended(); code != 1 {
			t.Errorf("leader %d ended with %d after its sleep", i, code)
		}
		t.Logf("leader %d ended %s after its sleep, and %d requests were held back", i, time.Since(woken).Round(time.Millisecond),
			strings.Count(leader.saying("is lost"), "the request isn't sent"))
		leader = next
	}
	p.let(1000)
	p.wantExact(e.until("slept-on", finished))
}
