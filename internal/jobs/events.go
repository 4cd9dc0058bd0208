package jobs

import (
	"maps"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// This file is where the informers' events come in. Handlers only update states and ask for syncs; they never call the API.

// jobChanged takes in a new or changed Job.
func (e *engine) jobChanged(job *batchv1.Job, from source) {
	s := e.registry.get(job.UID)
	if s == nil {
		s = e.registry.open(job.UID, job.Namespace, job.Name)
		if !e.owns(job) {
			e.metrics.externallyManaged(ptr.Deref(job.Spec.ManagedBy, batchv1.JobControllerName))
		}
	}
	e.learnJob(s, job, from)
	if e.owns(job) || e.manager == batchv1.JobControllerName {
		e.reaper.observe(job, from)
	}
}

// jobGone takes in that a Job was deleted.
func (e *engine) jobGone(job *batchv1.Job) {
	e.reaper.forget(job.UID)
	s := e.registry.get(job.UID)
	if s == nil {
		return
	}
	s.mu.Lock()
	mine := s.job == nil || e.owns(s.job)
	s.gone, s.job = true, nil
	orphans := slices.Collect(maps.Values(s.orphans))
	clear(s.orphans)
	empty := len(s.pods) == 0 || !mine
	s.mu.Unlock()
	for _, pod := range orphans {
		e.orphaned(pod)
	}
	if empty {
		e.registry.close(s)
		return
	}
	e.wake.Job(s.uid, 0)
}

// podChanged takes in a new or changed pod; old is nil for a new one.
func (e *engine) podChanged(old, pod *corev1.Pod, from source) {
	e.metrics.tracking(old, pod)
	owner, controlled := jobOwner(pod)
	if old != nil {
		if was, _ := jobOwner(old); was != nil && (owner == nil || owner.UID != was.UID) {
			e.podLeft(was.UID, pod)
		}
	}
	switch {
	case owner != nil:
		e.podOwned(owner, pod, old != nil && settled(old) && settled(pod), from)
	case controlled:
		e.registry.bind(pod)
	default:
		e.orphaned(pod)
	}
}

// podOwned takes in a pod that a Job controls; forgotten says that it was over and done with before it changed.
func (e *engine) podOwned(owner *metav1.OwnerReference, pod *corev1.Pod, forgotten bool, from source) {
	e.registry.bind(pod)
	uid := owner.UID
	s := e.registry.get(uid)
	if s == nil {
		if settled(pod) && from == fromInformer {
			return // the end of a pod of a Job that is gone
		}
		s = e.registry.open(uid, pod.Namespace, owner.Name)
	}
	s.mu.Lock()
	if forgotten && s.pods[pod.UID] == nil {
		s.mu.Unlock()
		return
	}
	delete(s.orphans, pod.UID)
	news := s.applyPod(pod, from, e.clock.Now())
	s.mu.Unlock()
	if news {
		e.wake.Job(uid, 0)
	}
	e.closeIfOver(s)
}

// podGone takes in that a pod was deleted.
func (e *engine) podGone(pod *corev1.Pod) {
	e.metrics.tracking(pod, nil)
	e.registry.bind(pod)
	if owner, _ := jobOwner(pod); owner != nil {
		e.podLeft(owner.UID, pod)
		return
	}
	for _, s := range e.registry.suitors(pod) {
		s.mu.Lock()
		delete(s.orphans, pod.UID)
		s.mu.Unlock()
	}
}

// podLeft takes in that a Job has a pod no more.
func (e *engine) podLeft(job types.UID, pod *corev1.Pod) {
	s := e.registry.get(job)
	if s == nil {
		return
	}
	s.mu.Lock()
	news := s.removePod(pod.UID, pod.ResourceVersion)
	s.mu.Unlock()
	if news {
		e.wake.Job(job, 0)
	}
	e.closeIfOver(s)
}

// orphaned takes in a pod that nothing controls. A Job that selects it may adopt it; if none does, nobody will count it, and it must not keep
// the tracking finalizer.
func (e *engine) orphaned(pod *corev1.Pod) {
	e.registry.loosen(pod)
	wanted := false
	for _, s := range e.registry.suitors(pod) {
		wanted = e.court(s, pod) || wanted
	}
	if !wanted && isTracked(pod) {
		e.wake.Loose(types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}, pod.UID)
	}
}

// court offers a loose pod to a Job and says whether it wants it.
func (e *engine) court(s *jobState, pod *corev1.Pod) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	wants := s.job != nil && s.job.DeletionTimestamp == nil && !isFinished(s.job) && e.owns(s.job) &&
		pod.DeletionTimestamp == nil && s.selector.Matches(labels.Set(pod.Labels))
	if !wants {
		delete(s.orphans, pod.UID)
		return false
	}
	s.orphans[pod.UID] = pod
	e.wake.Job(s.uid, 0)
	return true
}
