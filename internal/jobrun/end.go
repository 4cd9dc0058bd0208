package jobrun

import (
	"fmt"
	"regexp"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// A State is how a Job stands, for whoever waits for its end.
type State int

// The states of a Job. Only Unfinished isn't an end.
const (
	Unfinished  State = iota
	Complete          // it has the condition Complete
	Failed            // it has the condition Failed
	Deleted           // it is gone without having ended
	Interrupted       // it was deleted because the caller's context ended
)

// An End is how a Job ended.
type End struct {
	State State
	// Job is the Job as it was seen last.
	Job *batchv1.Job
	// Reason and Message are those of the condition.
	Reason, Message string
	// Code is the exit code of the container that failed last, from 1 to 255; 0 where none is known to have failed.
	Code int
	// HoldUp is what an Unfinished Job waits for, as far as its pods tell.
	HoldUp string
}

// endOf reads a Job's end from its conditions.
func endOf(job *batchv1.Job) End {
	for _, c := range job.Status.Conditions {
		if c.Status != corev1.ConditionTrue {
			continue
		}
		switch c.Type {
		case batchv1.JobComplete:
			return End{State: Complete, Job: job, Reason: c.Reason, Message: c.Message}
		case batchv1.JobFailed:
			return End{State: Failed, Job: job, Reason: c.Reason, Message: c.Message}
		}
	}
	return End{State: Unfinished, Job: job}
}

// goneEnd is how a Job that isn't there any more ended: as its conditions said, or
// by its deletion.
func goneEnd(job *batchv1.Job) End {
	end := endOf(job)
	if end.State == Unfinished {
		end.State = Deleted
	}
	return end
}

// String tells the end in a line.
func (e End) String() string {
	name := "job/" + e.Job.Name
	switch e.State {
	case Complete:
		return name + " is Complete"
	case Failed:
		return name + " has Failed" + because(e.Reason, e.Message)
	case Deleted, Interrupted:
		return name + " was deleted before it had ended"
	default:
		s := name + " has not ended: " + progress(e.Job)
		if e.HoldUp != "" {
			s += "; " + e.HoldUp
		}
		return s
	}
}

// grpcCode is what a runtime's answer to its node begins with, which nodes pass on.
var grpcCode = regexp.MustCompile(`rpc error: code = \w+ desc = `)

// because joins what there is of a reason and a message to what stands before.
func because(reason, message string) string {
	var b strings.Builder
	for _, s := range []string{reason, strings.TrimSpace(grpcCode.ReplaceAllString(message, ""))} {
		if s != "" {
			b.WriteString(": " + s)
		}
	}
	return b.String()
}

// progress is how far a Job has come.
func progress(job *batchv1.Job) string {
	s := fmt.Sprintf("%d succeeded, %d active, %d failed", job.Status.Succeeded, job.Status.Active, job.Status.Failed)
	if n := job.Spec.Completions; n != nil {
		s = fmt.Sprintf("%d of %d succeeded, %d active, %d failed", job.Status.Succeeded, *n, job.Status.Active, job.Status.Failed)
	}
	if stands := standing(job); stands != "" {
		s += "; it " + stands
	}
	return s
}

// standing says what keeps a Job from running that nobody has to wait for to know.
func standing(job *batchv1.Job) string {
	if m := ptr.Deref(job.Spec.ManagedBy, batchv1.JobControllerName); m != batchv1.JobControllerName {
		return fmt.Sprintf("is managed by %q (spec.managedBy), and runs only where that does", m)
	}
	if ptr.Deref(job.Spec.Suspend, false) {
		return fmt.Sprintf(`is suspended, and runs once somebody resumes it: kubectl patch job %s -n %s -p '{"spec":{"suspend":false}}'`, job.Name, job.Namespace)
	}
	return ""
}
