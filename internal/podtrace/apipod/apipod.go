// Package apipod tells package podtrace, which knows no API objects, which pod a
// Pod is.
package apipod

import (
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"errand.dev/errand/internal/podtrace"
)

// Identity is the pod's.
func Identity(pod *v1.Pod) podtrace.Identity {
	id := podtrace.Identity{Namespace: pod.Namespace, Name: pod.Name, UID: string(pod.UID)}
	if owner := metav1.GetControllerOfNoCopy(pod); owner != nil && owner.Kind == "Job" {
		id.JobName, id.JobUID = owner.Name, string(owner.UID)
	}
	return id
}
