package jobs

import (
	"container/list"
	"sync"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/utils/ptr"
)

// sums are the counters over a Job's pods, kept up to date with each change of a pod.
type sums struct {
	Active, Ready, Terminating int32
	// Tracked pods carry the tracking finalizer.
	Tracked int32
	// Restarts of containers of pods that haven't ended.
	Restarts int32
	// Succeeded and Failed are ended pods that status doesn't name yet.
	Succeeded, Failed int32
	// unseen pods are known in a version that the informer hasn't delivered.
	unseen int32
	// surplus pods are active and of no use (pod.surplus).
	surplus int32
}

// jobState is what the engine knows of one Job, by UID: the newest version of the Job, its live pods, and what the engine is about. It follows
// events and the engine's own writes; each costs what it changes.
type jobState struct {
	uid             types.UID
	namespace, name string

	mu sync.Mutex
	// job is the newest version known; nil before the Job was seen, and after it is gone. It is shared with the informer: read only.
	job  *batchv1.Job
	gone bool

	selector  labels.Selector
	pods      map[types.UID]*pod
	uncounted map[types.UID]struct{} // the UIDs in job.Status.UncountedTerminatedPods
	waiting   list.List              // of *pod: ended, tracked and not in uncounted
	misfits   map[types.UID]*pod     // controlled by the Job, but not selected
	orphans   map[types.UID]*corev1.Pod
	imageless map[types.UID]*pod // active, and an image can't be pulled
	sum       sums
	history   failureHistory
	// indexes is nil unless the Job is Indexed.
	indexes *indexes
	// closing says that no more pods will be created: the Job's end is decided, it is being deleted, or its namespace is.
	closing bool

	// sent is the status that the engine has sent last, nil if the answer has come: the informer may show it before the answer does, or instead of it.
	sent *batchv1.JobStatus
	// left are the pods that were forgotten while a sync is making requests, by version; nil between syncs. An answer that was on its way then
	// doesn't bring them back.
	left map[types.UID]string
	// podsFrom is the version that the pods must have reached before the Job's status can be trusted, and jobFrom that as of which the Job must be
	// known before its pods can be; "" if there is none. unverified says that the Job had a life before this process knew it.
	podsFrom, jobFrom string
	unverified        bool
	// listedAt is the version of the newest live list of the Job's pods.
	listedAt string
	// unseenSince is when some pod's version began to be unseen by the informer.
	unseenSince time.Time

	// nextSlot is the first slot for a pod that this process hasn't used; unresolved are slots whose creation may or may not have happened.
	nextSlot   int64
	unresolved []int64
	// refused is set once the namespace accepts no new pods.
	refused bool
	held    holds
	// routine bounds the events of single pods; nil before the first.
	routine flowcontrol.PassiveRateLimiter

	// startedAt is the exact time that job.Status.StartTime rounds down, if this process set it.
	startedAt time.Time
}

func newJobState(uid types.UID, namespace, name string) *jobState {
	return &jobState{
		uid: uid, namespace: namespace, name: name,
		selector: labels.Nothing(),
		pods:     map[types.UID]*pod{},
		misfits:  map[types.UID]*pod{},
		orphans:  map[types.UID]*corev1.Pod{},

		imageless: map[types.UID]*pod{},
	}
}

// source tells where a version of an object came from.
type source uint8

const (
	fromInformer source = iota
	// fromInitialList objects existed before this process looked.
	fromInitialList
	// fromOwnWrite objects are the API's answer to the engine's own write.
	fromOwnWrite
	// fromLiveRead objects were read around the informer.
	fromLiveRead
)

// applyJob takes over a version of the Job and says whether it is news.
func (s *jobState) applyJob(job *batchv1.Job, from source) bool {
	if s.gone {
		return false
	}
	before := s.job
	if before != nil {
		if c := compareVersions(job.ResourceVersion, before.ResourceVersion); c <= 0 {
			if c == 0 && from == fromInformer {
				s.job = job // share the informer's object, drop ours
			}
			return false
		}
	}
	if s.strange(before, job, from) {
		s.podsFrom = job.ResourceVersion
		s.unverified = s.unverified || before == nil
	}
	s.job = job
	if isIndexed(job) {
		s.readIndexes(job)
	}
	if s.concernsAll(before, job, from) {
		s.reclassify()
	}
	s.renameUncounted()
	s.noteClosing()
	return true
}

// concernsAll says whether a new version of the Job changes what its pods mean.
func (s *jobState) concernsAll(before, job *batchv1.Job, from source) bool {
	return before == nil || !equality.Semantic.DeepEqual(before.Spec.Selector, job.Spec.Selector) ||
		replacesFailedOnly(before) != replacesFailedOnly(job) ||
		s.indexes != nil && (*before.Spec.Completions != *job.Spec.Completions || from != fromOwnWrite && !sameIndexes(before, job))
}

// sameIndexes says whether the same indexes have succeeded and been given up.
func sameIndexes(a, b *batchv1.Job) bool {
	return a.Status.CompletedIndexes == b.Status.CompletedIndexes && ptr.Equal(a.Status.FailedIndexes, b.Status.FailedIndexes)
}

// noteClosing lets pods be counted that were to wait for their replacement, once it is certain that there will be none.
func (s *jobState) noteClosing() {
	closing := s.refused || s.job.DeletionTimestamp != nil || isFinished(s.job) || decidedEnd(s.job.Status.Conditions) != nil
	if closing == s.closing {
		return
	}
	s.closing = closing
	s.reviewAll()
}

// strange says whether the Job's status was (or may have been) written by somebody else, who may have known newer pods than we do.
func (s *jobState) strange(before, job *batchv1.Job, from source) bool {
	switch {
	case from == fromOwnWrite:
		return false
	case s.sent != nil && equality.Semantic.DeepEqual(*s.sent, job.Status):
		return false // and if somebody else has counted the same, it knew no more
	case before == nil:
		return from != fromInformer || !equality.Semantic.DeepEqual(job.Status, batchv1.JobStatus{})
	default:
		return !equality.Semantic.DeepEqual(before.Status, job.Status)
	}
}

// awaitJob demands that the Job is known as of a version before anything is decided: somebody else has released or removed a pod of it by then,
// and may have counted it.
func (s *jobState) awaitJob(version string) {
	if s.jobFrom == "" || compareVersions(version, s.jobFrom) > 0 {
		s.jobFrom = version
	}
}

// reclassify looks at all pods anew after a change of the Job that concerns them all.
func (s *jobState) reclassify() {
	selector, err := metav1.LabelSelectorAsSelector(s.job.Spec.Selector)
	if err != nil { // the API server doesn't let such a selector in
		selector = labels.Nothing()
	}
	s.selector = selector
	for _, p := range s.pods {
		s.withdraw(p)
		s.enter(p)
	}
}

// renameUncounted takes over which pods the status names as ended but not yet counted.
func (s *jobState) renameUncounted() {
	old := s.uncounted
	s.uncounted = nil
	if u := s.job.Status.UncountedTerminatedPods; u != nil && len(u.Succeeded)+len(u.Failed) > 0 {
		s.uncounted = make(map[types.UID]struct{}, len(u.Succeeded)+len(u.Failed))
		for _, uid := range u.Succeeded {
			s.uncounted[uid] = struct{}{}
		}
		for _, uid := range u.Failed {
			s.uncounted[uid] = struct{}{}
		}
	}
	for uid := range s.uncounted {
		if p := s.pods[uid]; p != nil && p.waiting != nil {
			s.withdraw(p)
			s.enter(p)
		}
	}
	for uid := range old {
		if _, still := s.uncounted[uid]; still {
			continue
		}
		if p := s.pods[uid]; p != nil {
			s.withdraw(p)
			s.enter(p)
		}
	}
}

// replacesFailedOnly says whether pods are replaced (and counted) only once they have really ended (KEP-3939, podReplacementPolicy: Failed). A
// podFailurePolicy, which judges how they ended, demands it.
func replacesFailedOnly(job *batchv1.Job) bool {
	return job.Spec.PodFailurePolicy != nil || ptr.Deref(job.Spec.PodReplacementPolicy, batchv1.TerminatingOrFailed) == batchv1.Failed
}
