//go:build e2e && slow

package e2e

import (
	"testing"
	"time"
)

// The tour's last line: after 100 s there are no pods.
func TestSlowTTL(t *testing.T) {
	e := start(t)
	e.kubectl("apply", "-f", "../../examples/job-echo.yaml")
	e.kubectl("patch", "job/job-echo", "--patch", `{"spec":{"suspend":false}}`)
	j := e.until("job-echo", finished)
	e.waitFor(130*time.Second, "delete", "job/job-echo")
	if lived := time.Since(j.Status.CompletionTime.Time); lived < 100*time.Second || lived > 105*time.Second {
		t.Errorf("the Job went %s after its end, want 100 s", lived)
	}
	e.wait("delete", "pod", "-l", "job-name=job-echo")
}

// The example that runs by the clock does so.
func TestSlowCronJob(t *testing.T) {
	e := start(t)
	e.kubectl("apply", "-f", "../../examples/cronjob.yaml")
	e.waitFor(90*time.Second, "jsonpath={.status.lastSuccessfulTime}", "cronjob/every-minute")
	wantLines(t, e.kubectl("logs", "-l", "batch.kubernetes.io/job-name", "--tail=1"), "<any>")
}
