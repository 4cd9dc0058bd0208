package jobs

import (
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"errand.dev/errand/internal/jobannotations"
)

// start gives a Job that may run its start time, and ends its suspension (KEP-2232). A resumed Job starts anew: the time it rested doesn't count.
func (d *draft) start() {
	if d.suspended() || d.deleting() {
		return
	}
	now := d.now.Truncate(time.Second)
	resumed := newCondition(batchv1.JobSuspended, "JobResumed", "Job resumed", now)
	resumed.Status = corev1.ConditionFalse
	if setCondition(&d.status.Conditions, resumed) {
		d.status.StartTime = nil
		d.event(corev1.EventTypeNormal, "Resumed", "Job resumed")
	}
	if d.status.StartTime == nil {
		d.status.StartTime = ptr.To(metav1.NewTime(now))
		for _, err := range jobannotations.Validate(d.job.Annotations, field.NewPath("metadata", "annotations")) {
			// errand's own API refuses them before; another's doesn't know them.
			d.event(corev1.EventTypeWarning, "InvalidAnnotation", "Ignored: "+err.Error())
		}
	}
}

// rest stops the pods of a suspended Job. They aren't counted. Once none is active the Job is suspended and has no start time, so that its
// scheduling directives and resources can be changed (KEP-2926, KEP-5440).
func (d *draft) rest() {
	d.remove(d.v.Active, true)
	if d.status.Active > 0 {
		return
	}
	if setCondition(&d.status.Conditions, newCondition(batchv1.JobSuspended, "JobSuspended", "Job suspended", d.now.Truncate(time.Second))) {
		d.status.StartTime = nil
		d.event(corev1.EventTypeNormal, "Suspended", "Job suspended")
	}
}
