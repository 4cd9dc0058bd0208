package jobrun

import (
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/utils/ptr"
)

func TestEnd(t *testing.T) {
	for name, tc := range map[string]struct {
		end  End
		want State
		text string
	}{
		"complete":          {endOf(makeJob("a", with(batchv1.JobComplete, "CompletionsReached", "Reached"))), Complete, "job/a is Complete"},
		"failed":            {endOf(makeJob("a", with(batchv1.JobFailed, "BackoffLimitExceeded", "too many"))), Failed, "job/a has Failed: BackoffLimitExceeded: too many"},
		"about to fail":     {endOf(makeJob("a", with(batchv1.JobFailureTarget, "X", "y"))), Unfinished, "job/a has not ended: 0 of 1 succeeded, 0 active, 0 failed"},
		"a work queue":      {endOf(makeJob("a", func(j *batchv1.Job) { j.Spec.Completions = nil; j.Status.Active = 2 })), Unfinished, "job/a has not ended: 0 succeeded, 2 active, 0 failed"},
		"gone":              {goneEnd(makeJob("a")), Deleted, "job/a was deleted before it had ended"},
		"gone afterwards":   {goneEnd(makeJob("a", with(batchv1.JobComplete, "", ""))), Complete, "job/a is Complete"},
		"managed by itself": {endOf(makeJob("a", func(j *batchv1.Job) { j.Spec.ManagedBy = ptr.To(batchv1.JobControllerName) })), Unfinished, "job/a has not ended: 0 of 1 succeeded, 0 active, 0 failed"},
		"managed by another": {endOf(makeJob("a", func(j *batchv1.Job) { j.Spec.ManagedBy = ptr.To("x/y") })), Unfinished,
			`job/a has not ended: 0 of 1 succeeded, 0 active, 0 failed; it is managed by "x/y" (spec.managedBy), and runs only where that does`},
		"suspended": {endOf(makeJob("a", func(j *batchv1.Job) { j.Spec.Suspend = ptr.To(true) })), Unfinished,
			`job/a has not ended: 0 of 1 succeeded, 0 active, 0 failed; it is suspended, and runs once somebody resumes it: kubectl patch job a -n default -p '{"spec":{"suspend":false}}'`},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.end.State != tc.want || tc.end.String() != tc.text {
				t.Errorf("state %d, %q; want %d, %q", tc.end.State, tc.end, tc.want, tc.text)
			}
		})
	}
}
