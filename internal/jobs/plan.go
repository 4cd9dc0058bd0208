package jobs

import (
	"time"

	batchv1 "k8s.io/api/batch/v1"
)

const (
	// maxUncounted is how many UIDs status.uncountedTerminatedPods may hold: about 20 KB.
	maxUncounted = 500
	// maxPodsPerPlan bounds how many pods one plan creates or deletes, so that status and other Jobs get their turn.
	maxPodsPerPlan = 500
)

// plan is what to do about a Job, in the order of the fields. A plan that says nothing to do is the zero plan but for Again.
type plan struct {
	// Claim pods, before anything else is decided.
	Claim []claim
	// Create pods.
	Create []creation
	// Resolve finds out whether pods exist in these slots, which aren't needed any more.
	Resolve []int64
	// Delete pods.
	Delete []deletion
	// Status to write, as it will be once all pods above were created and deleted; nil if it stands already. If one of those deeds fails, the
	// status isn't written, and the Job is decided anew.
	Status *batchv1.JobStatus
	// Release the tracking finalizer from these pods, once the status is written.
	Release []release
	// Events to record, once the status is written.
	Events []event
	// Again is when to decide anew if nothing happens until then; 0: not needed.
	Again time.Duration
}

// idle says whether there is nothing to do now.
func (p *plan) idle() bool {
	return len(p.Claim)+len(p.Create)+len(p.Resolve)+len(p.Delete)+len(p.Release)+len(p.Events) == 0 && p.Status == nil
}

// lookAgain makes sure that the Job is decided anew within d.
func (p *plan) lookAgain(d time.Duration) {
	if d > 0 && (p.Again == 0 || d < p.Again) {
		p.Again = d
	}
}

// creation is a pod to be created.
type creation struct {
	// Slot decides the pod's name, and the index of an Indexed Job's.
	Slot int64
	// Before is how often the index has failed already, if the Job limits that.
	Before indexFailures
}

// deletion is a pod to be deleted.
type deletion struct {
	podRef
	// Discard takes the tracking finalizer off first, provided that the pod hasn't changed: the pod isn't to be counted.
	Discard bool
}

// release is a pod that is to lose the tracking finalizer.
type release struct {
	podRef
	// Unchanged demands that the pod hasn't changed since: it isn't counted, and if it has ended meanwhile, it has to be.
	Unchanged bool
	// Handled is what the podFailurePolicy has done about the pod, for the metrics.
	Handled batchv1.PodFailurePolicyAction
}

// event is a Kubernetes event about the Job.
type event struct {
	Type, Reason, Message string
}
