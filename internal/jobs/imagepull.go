package jobs

import (
	"cmp"
	"fmt"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"

	"errand.dev/errand/internal/jobannotations"
)

// ReasonImagePullFailed is that of a Job that has failed because an image of its pods can't be pulled.
const ReasonImagePullFailed = "ImagePullFailed"

// pullFailures are the reasons by which a container waits whose image can't be pulled, as the kubelet and the CRI name them.
var pullFailures = sets.New("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError",
	"RegistryUnavailable", "SignatureValidationFailed")

// failingPull is what keeps a pod's container from getting its image; the zero value is nothing.
type failingPull struct {
	// since is when the pod was started.
	since   time.Time
	message string
}

func (f failingPull) none() bool { return f.message == "" }

// readPull says whether an image of a pod can't be pulled.
func readPull(obj *corev1.Pod) failingPull {
	for _, statuses := range [][]corev1.ContainerStatus{obj.Status.InitContainerStatuses, obj.Status.ContainerStatuses} {
		for i := range statuses {
			w := statuses[i].State.Waiting
			if w == nil || !pullFailures.Has(w.Reason) {
				continue
			}
			since := obj.CreationTimestamp.Time
			if obj.Status.StartTime != nil {
				since = obj.Status.StartTime.Time
			}
			return failingPull{since, fmt.Sprintf("container %s of pod %s can't get its image: %s", statuses[i].Name, obj.Name, cmp.Or(w.Message, w.Reason))}
		}
	}
	return failingPull{}
}

// imageMissing: the Job asks to fail if an image can't be pulled for so long, and there is one.
func (d *draft) imageMissing() *batchv1.JobCondition {
	limit, limited := jobannotations.Duration(d.job.Annotations, jobannotations.ImagePullDeadline)
	pull := d.v.Pull
	if !limited || pull.none() || d.suspended() {
		return nil
	}
	if left := limit - d.now.Sub(pull.since); left > 0 {
		d.plan.lookAgain(left)
		return nil
	}
	return d.verdict(batchv1.JobFailureTarget, ReasonImagePullFailed, "Job has waited too long for an image: "+pull.message)
}
