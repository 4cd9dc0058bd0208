package jobs

import (
	"context"
	"fmt"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
)

// caches are the informers' caches. Their methods may be called concurrently.
type caches interface {
	// PodsVersion is the version up to which the cache of pods is complete; "" if that isn't known.
	PodsVersion() string
	// PodsOf returns the cached pods that the object with that UID controls.
	PodsOf(uid types.UID) []*corev1.Pod
	// JobsVersion is the version up to which the cache of Jobs is complete; "" if that isn't known.
	JobsVersion() string
	// JobNamed returns the cached Job, or nil.
	JobNamed(namespace, name string) *batchv1.Job
}

// catchUp makes sure that a Job and its pods are known as of about the same time, as far as others may have written them: a status may count pods
// that a stale cache shows as uncounted, and pods may have been released that a stale status doesn't count. The caches are asked first, then
// the API. It returns false if the Job turned out to be in motion, or gone; a sync has been asked for then.
//
// This compares versions of pods with versions of Jobs: both are revisions of the same store.
func (e *engine) catchUp(ctx context.Context, s *jobState) (current bool, err error) {
	for range catchUpRounds {
		s.mu.Lock()
		if s.job != nil && isFinished(s.job) {
			s.podsFrom, s.jobFrom, s.unverified = "", "", false // there is nothing left to count
		}
		readPods, _ := s.behind(e.clock.Now())
		gone, unverified, jobFrom := s.gone, s.unverified, s.jobFrom
		s.mu.Unlock()
		switch {
		case gone:
			e.wake.Job(s.uid, 0)
			return false, nil
		case unverified:
			err = e.verify(ctx, s)
		case readPods:
			err = e.readPods(ctx, s)
		case jobFrom != "":
			err = e.readJob(ctx, s, jobFrom)
		default:
			return true, nil
		}
		if err != nil {
			return false, err
		}
	}
	e.wake.Job(s.uid, 0)
	return false, nil
}

// catchUpRounds is how often a Job and its pods are read in turn before others get their turn.
const catchUpRounds = 4

// readPods reads the Job's pods from the cache, if that is new enough, else live.
func (e *engine) readPods(ctx context.Context, s *jobState) error {
	s.mu.Lock()
	now, job := e.clock.Now(), s.job
	// The version first: what is listed after it is at least as new.
	if version := e.caches.PodsVersion(); version != "" && (s.podsFrom == "" || compareVersions(version, s.podsFrom) >= 0) {
		s.applyList(e.caches.PodsOf(s.uid), version, false, now)
		s.mu.Unlock()
		return nil
	}
	s.mu.Unlock()
	klog.FromContext(ctx).V(4).Info("Reading the Job's pods live", "job", klog.KObj(job))
	// All pods of the namespace: one that the Job controls may have lost the labels that the Job selects.
	list, err := e.client.CoreV1().Pods(s.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("reading the pods of Job %s/%s: %w", s.namespace, s.name, err)
	}
	var controlled []*corev1.Pod
	for i := range list.Items {
		if owner, _ := jobOwner(&list.Items[i]); owner != nil && owner.UID == s.uid {
			controlled = append(controlled, &list.Items[i])
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.applyList(controlled, list.ResourceVersion, true, now)
	return nil
}

// verify reads live a Job that had a life before this process knew it. The informers' first lists may have been old: what they show could
// make the engine repeat what was done long ago.
func (e *engine) verify(ctx context.Context, s *jobState) error {
	version := e.caches.PodsVersion()
	if err := e.readJobLive(ctx, s, version); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unverified = false
	return nil
}

// readJob reads the Job from the cache, if that is complete up to the version, else live.
func (e *engine) readJob(ctx context.Context, s *jobState, version string) error {
	if cached := e.caches.JobsVersion(); cached != "" && compareVersions(cached, version) >= 0 {
		if job := e.caches.JobNamed(s.namespace, s.name); job != nil && job.UID == s.uid {
			e.learnJob(s, job, fromLiveRead)
			s.jobReadAt(version)
			return nil
		}
	}
	return e.readJobLive(ctx, s, version)
}

func (e *engine) readJobLive(ctx context.Context, s *jobState, version string) error {
	job, err := e.client.BatchV1().Jobs(s.namespace).Get(ctx, s.name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err) || err == nil && job.UID != s.uid:
		s.bury()
		return nil
	case err != nil:
		return fmt.Errorf("reading Job %s/%s: %w", s.namespace, s.name, err)
	default:
		e.learnJob(s, job, fromLiveRead)
		s.jobReadAt(version)
		return nil
	}
}

// jobReadAt notes that the Job is known as of a version.
func (s *jobState) jobReadAt(version string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.jobFrom != "" && compareVersions(s.jobFrom, version) <= 0 {
		s.jobFrom = ""
	}
}

// bury notes that the Job doesn't exist any more.
func (s *jobState) bury() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone, s.job = true, nil
}
