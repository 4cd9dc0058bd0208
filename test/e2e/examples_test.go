//go:build e2e

package e2e

import "testing"

// The examples work as they stand. The tour's Job has TestTranscript; the
// CronJob's clock has TestSlowCronJob.
func TestExamples(t *testing.T) {
	e := start(t)

	e.kubectl("apply", "-f", "../../examples/job-parallel.yaml", "-f", "../../examples/job-fails.yaml", "-f", "../../examples/cronjob.yaml")
	wantLines(t, e.kubectl("get", "cronjobs"), `
		NAME         SCHEDULE  TIMEZONE SUSPEND ACTIVE LAST SCHEDULE AGE
		every-minute * * * * * <none>   False   <any>  <any>         <age>`)

	e.wait("condition=complete", "job/parallel")
	if n := len(e.pods("parallel")); n != 12 {
		t.Errorf("parallel took %d pods, want 12", n)
	}

	e.kubectl("apply", "-f", "../../examples/job-indexed.yaml")
	e.wait("condition=failed", "job/indexed")
	wantLines(t, e.kubectl("get", "job", "indexed", "-o", "jsonpath={.status.completedIndexes} {.status.failedIndexes}"), "0-2,4 3")
	wantReasons(t, e.eventReasons("indexed"), "SuccessfulCreate", "SuccessfulCreate", "SuccessfulCreate", "SuccessfulCreate", "SuccessfulCreate", "FailedIndexes")

	e.kubectl("apply", "-f", "../../examples/job-volume.yaml")
	e.wait("condition=complete", "job/volume")
	wantLines(t, e.kubectl("logs", "job/volume"), "1")

	e.wait("condition=failed", "job/fails")
	if n := len(e.pods("fails")); n != 2 {
		t.Errorf("fails took %d pods, want 2", n)
	}
	wantReasons(t, e.eventReasons("fails"), "SuccessfulCreate", "SuccessfulCreate", "BackoffLimitExceeded")
}
