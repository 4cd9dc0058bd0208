package jobs

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// jobsDomain is that of the annotations that say what a pod is to its Job.
const jobsDomain = "batch.kubernetes.io/"

// TrimPod takes off a pod, for an informer's cache, what the engine never reads. Of another controller's pod it leaves a few hundred bytes: enough
// to know that it is one.
func TrimPod(p *corev1.Pod) {
	p.ManagedFields = nil
	if owner := metav1.GetControllerOfNoCopy(p); owner != nil && owner.Kind != "Job" {
		*p = corev1.Pod{
			TypeMeta: p.TypeMeta,
			ObjectMeta: metav1.ObjectMeta{
				Namespace: p.Namespace, Name: p.Name, UID: p.UID, ResourceVersion: p.ResourceVersion,
				Finalizers:      p.Finalizers,
				OwnerReferences: []metav1.OwnerReference{*owner},
			},
			Status: corev1.PodStatus{Phase: p.Status.Phase},
		}
		return
	}
	for name := range p.Annotations {
		if !strings.HasPrefix(name, jobsDomain) {
			delete(p.Annotations, name)
		}
	}
	p.Spec = corev1.PodSpec{
		NodeName:       p.Spec.NodeName,
		Hostname:       p.Spec.Hostname,
		RestartPolicy:  p.Spec.RestartPolicy,
		InitContainers: trimContainers(p.Spec.InitContainers),
	}
	p.Status.HostIPs, p.Status.PodIPs = nil, nil
	p.Status.EphemeralContainerStatuses = nil
	trimStatuses(p.Status.InitContainerStatuses)
	trimStatuses(p.Status.ContainerStatuses)
}

// trimContainers keeps what tells sidecars from other containers.
func trimContainers(containers []corev1.Container) []corev1.Container {
	if len(containers) == 0 {
		return nil
	}
	trimmed := make([]corev1.Container, len(containers))
	for i := range containers {
		trimmed[i] = corev1.Container{Name: containers[i].Name, RestartPolicy: containers[i].RestartPolicy}
	}
	return trimmed
}

// trimStatuses keeps how containers ended, but not what they said.
func trimStatuses(statuses []corev1.ContainerStatus) {
	for i := range statuses {
		s := &statuses[i]
		*s = corev1.ContainerStatus{
			Name: s.Name, State: s.State, Ready: s.Ready, Started: s.Started, RestartCount: s.RestartCount,
		}
		if s.State.Terminated != nil {
			s.State.Terminated.Message, s.State.Terminated.ContainerID = "", ""
		}
	}
}
