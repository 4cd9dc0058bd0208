package clusterengine

import (
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"
)

// jobsDomain is that of the annotations that say what a pod is to its Job.
const jobsDomain = "batch.kubernetes.io/"

// trim makes a cache's transform: it takes off what the engine of that manager
// never reads. All pods have to be watched, for by their labels a Job's pods
// can't be told from others with certainty; but of another controller's pod, a
// few hundred bytes are enough to know that it is one.
func trim(manager string) cache.TransformFunc {
	return func(obj any) (any, error) {
		switch o := obj.(type) {
		case *corev1.Pod:
			trimPod(o)
		case *batchv1.Job:
			o.ManagedFields = nil // the API server keeps them when a status is written without
			if ptr.Deref(o.Spec.ManagedBy, batchv1.JobControllerName) != manager {
				o.Spec.Template = corev1.PodTemplateSpec{}
			}
		}
		return obj, nil
	}
}

func trimPod(p *corev1.Pod) {
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
		RestartPolicy:  p.Spec.RestartPolicy,
		InitContainers: trimContainers(p.Spec.InitContainers),
		Containers:     trimContainers(p.Spec.Containers),
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
