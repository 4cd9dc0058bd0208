package jobs

import (
	"maps"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// newPod makes the pod with the given name from the Job's template. Labels that tie it to the Job are already in the template: the API server
// puts them there when the Job is created.
func newPod(job *batchv1.Job, name string, c creation) *corev1.Pod {
	template := &job.Spec.Template
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name:            name,
			GenerateName:    generateName(job.Name),
			Namespace:       job.Namespace,
			Labels:          maps.Clone(template.Labels),
			Annotations:     maps.Clone(template.Annotations),
			Finalizers:      slices.Clone(template.Finalizers),
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(job, batchv1.SchemeGroupVersion.WithKind("Job"))},
		},
	}
	if !isTracked(pod) {
		pod.Finalizers = append(pod.Finalizers, batchv1.JobTrackingFinalizer)
	}
	template.Spec.DeepCopyInto(&pod.Spec)
	if isIndexed(job) {
		setIndex(pod, job.Name, indexOfSlot(c.Slot))
	}
	if limitsPerIndex(job) {
		c.Before.write(pod)
	}
	return pod
}
