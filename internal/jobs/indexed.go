package jobs

import (
	"fmt"
	"strconv"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/storage/names"
	"k8s.io/utils/ptr"
)

// This file is what makes a pod one of an Indexed Job (KEP-2214, KEP-4017).

const (
	// noIndex is the index of a pod that has none.
	noIndex = -1
	// completionIndexEnv tells a container its index.
	completionIndexEnv = "JOB_COMPLETION_INDEX"
)

func isIndexed(job *batchv1.Job) bool {
	return ptr.Deref(job.Spec.CompletionMode, batchv1.NonIndexedCompletion) == batchv1.IndexedCompletion
}

// completionIndex returns the index of a pod of the Job with that name. The host name tells it, which nobody can change; the annotation counts for pods
// that have another host name.
func completionIndex(jobName string, pod *corev1.Pod) int32 {
	if number, ok := strings.CutPrefix(pod.Spec.Hostname, jobName+"-"); ok {
		if i, ok := parseCount(number); ok {
			return i
		}
	}
	if i, ok := parseCount(pod.Annotations[batchv1.JobCompletionIndexAnnotation]); ok {
		return i
	}
	return noIndex
}

// parseCount reads a number that isn't negative, in the only way that the engine writes it.
func parseCount(s string) (int32, bool) {
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil || n < 0 || strconv.FormatInt(n, 10) != s {
		return 0, false
	}
	return int32(n), true
}

// setIndex makes a pod the one for an index: it and its containers know.
func setIndex(pod *corev1.Pod, jobName string, index int32) {
	number := strconv.Itoa(int(index))
	put := func(m *map[string]string) {
		if *m == nil {
			*m = map[string]string{}
		}
		(*m)[batchv1.JobCompletionIndexAnnotation] = number
	}
	put(&pod.Labels)
	put(&pod.Annotations)
	pod.GenerateName = indexedPrefix(jobName, index)
	pod.Spec.Hostname = fmt.Sprintf("%s-%d", jobName, index)
	for i := range pod.Spec.InitContainers {
		tellIndex(&pod.Spec.InitContainers[i])
	}
	for i := range pod.Spec.Containers {
		tellIndex(&pod.Spec.Containers[i])
	}
}

// tellIndex sets the environment variable, unless the user has one by the same name.
func tellIndex(c *corev1.Container) {
	for i := range c.Env {
		if c.Env[i].Name == completionIndexEnv {
			return
		}
	}
	c.Env = append(c.Env, corev1.EnvVar{Name: completionIndexEnv, ValueFrom: &corev1.EnvVarSource{
		FieldRef: &corev1.ObjectFieldSelector{FieldPath: fmt.Sprintf("metadata.labels['%s']", batchv1.JobCompletionIndexAnnotation)},
	}})
}

// indexedPrefix is what the names of an index's pods begin with. The index is never cut off.
func indexedPrefix(jobName string, index int32) string {
	number := fmt.Sprintf("-%d-", index)
	return jobName[:min(len(jobName), names.MaxGeneratedNameLength-len(number))] + number
}

// A slot of an Indexed Job is an attempt at an index, both counted from 0.

func slotOf(index, attempt int32) int64 { return int64(attempt)<<32 | int64(index) }

func indexOfSlot(slot int64) int32 { return int32(slot & 0xffffffff) }

func attemptOfSlot(slot int64) int32 { return int32(slot >> 32) }
