package runtimepod

import (
	"hash/fnv"
	"io"
	"maps"
	"strconv"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// The kubelet's names, so that crictl and log collectors understand what they see.
const (
	LabelPodName       = "io.kubernetes.pod.name"
	LabelPodNamespace  = "io.kubernetes.pod.namespace"
	LabelPodUID        = "io.kubernetes.pod.uid"
	LabelContainerName = "io.kubernetes.container.name"

	annotationDefinition  = "io.kubernetes.container.hash"
	annotationRestarts    = "io.kubernetes.container.restartCount"
	annotationMessagePath = "io.kubernetes.container.terminationMessagePath"
	annotationMessageFrom = "io.kubernetes.container.terminationMessagePolicy"
	annotationGrace       = "io.kubernetes.pod.terminationGracePeriod"

	// annotationRound and annotationJob are errand's own: the latter is the Job of a pod, as UID/name.
	annotationRound = "errand.dev/container-round"
	annotationJob   = "errand.dev/job"
)

// Job is the Job that a pod belongs to; the zero value is none.
type Job struct {
	Name string
	UID  types.UID
}

// JobOf returns the Job that controls the pod.
func JobOf(pod *v1.Pod) Job {
	owner := metav1.GetControllerOf(pod)
	if owner == nil || owner.Kind != "Job" || !strings.HasPrefix(owner.APIVersion, batchv1.GroupName+"/") {
		return Job{}
	}
	return Job{Name: owner.Name, UID: owner.UID}
}

// PodAnnotations are the annotations of the pod's sandboxes: the pod's own, and one
// that tells its Job, which is asked for when the API has neither any more.
func PodAnnotations(pod *v1.Pod) map[string]string {
	_, own := pod.Annotations[annotationJob]
	job := JobOf(pod)
	if !own && job == (Job{}) {
		return pod.Annotations
	}
	annotations := make(map[string]string, len(pod.Annotations)+1)
	maps.Copy(annotations, pod.Annotations)
	delete(annotations, annotationJob)
	if job != (Job{}) {
		annotations[annotationJob] = string(job.UID) + "/" + job.Name
	}
	return annotations
}

// JobFrom returns the Job that a sandbox's annotations tell of.
func JobFrom(annotations map[string]string) Job {
	uid, name, _ := strings.Cut(annotations[annotationJob], "/")
	return Job{Name: name, UID: types.UID(uid)}
}

// PodLabels are the labels of the pod's sandboxes: the pod's own and those that
// say which pod it is.
func PodLabels(pod *v1.Pod) map[string]string {
	labels := make(map[string]string, len(pod.Labels)+3)
	maps.Copy(labels, pod.Labels)
	labels[LabelPodName] = pod.Name
	labels[LabelPodNamespace] = pod.Namespace
	labels[LabelPodUID] = string(pod.UID)
	return labels
}

// ContainerLabels are the labels of a container of the pod.
func ContainerLabels(pod *v1.Pod, c *v1.Container) map[string]string {
	return map[string]string{
		LabelPodName:       pod.Name,
		LabelPodNamespace:  pod.Namespace,
		LabelPodUID:        string(pod.UID),
		LabelContainerName: c.Name,
	}
}

// ContainerAnnotations are the annotations of the container's run number
// restarts, in the given round of all containers, both counted from 0.
func ContainerAnnotations(pod *v1.Pod, c *v1.Container, restarts, round int32) map[string]string {
	annotations := map[string]string{
		annotationDefinition:  Definition(c),
		annotationRestarts:    strconv.Itoa(int(restarts)),
		annotationMessagePath: c.TerminationMessagePath,
		annotationMessageFrom: string(c.TerminationMessagePolicy),
	}
	if round > 0 {
		annotations[annotationRound] = strconv.Itoa(int(round))
	}
	if grace := pod.Spec.TerminationGracePeriodSeconds; grace != nil {
		annotations[annotationGrace] = strconv.FormatInt(*grace, 10)
	}
	return annotations
}

// Definition is a fingerprint of those fields of a container that may change
// during its pod's life and make a new run necessary.
func Definition(c *v1.Container) string {
	h := fnv.New64a()
	_, _ = io.WriteString(h, c.Name+"\x00"+c.Image) // never fails
	return strconv.FormatUint(h.Sum64(), 16)
}

// UIDOf returns the UID of the pod that a labelled sandbox or container belongs
// to, "" if it is none of a pod's.
func UIDOf(labels map[string]string) types.UID {
	return types.UID(labels[LabelPodUID])
}

// UIDSelector is the CRI label selector for everything of one pod.
func UIDSelector(uid types.UID) map[string]string {
	return map[string]string{LabelPodUID: string(uid)}
}

// ContainerID is the API's form of a container's ID.
func ContainerID(runtimeName, id string) string {
	return runtimeName + "://" + id
}

func bareID(containerID string) string {
	_, id, ok := strings.Cut(containerID, "://")
	if !ok {
		return containerID
	}
	return id
}
