package jobs

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
)

// applyPod takes over a version of a pod that the Job controls and says whether it is news.
func (s *jobState) applyPod(obj *corev1.Pod, from source, now time.Time) bool {
	informed := from == fromInformer || from == fromInitialList
	p := s.pods[obj.UID]
	if p == nil {
		return s.addPod(obj, from, now)
	}
	c := compareVersions(obj.ResourceVersion, p.ResourceVersion)
	if c < 0 {
		return false
	}
	s.withdraw(p)
	if c > 0 {
		tracked := p.tracked()
		p.read(obj)
		p.seen = false
		if tracked && !p.tracked() && !p.letGo && from != fromOwnWrite {
			s.awaitJob(obj.ResourceVersion)
		}
	}
	p.seen = p.seen || informed
	s.enter(p)
	s.noteUnseen(now)
	return c > 0
}

func (s *jobState) addPod(obj *corev1.Pod, from source, now time.Time) bool {
	informed := from == fromInformer || from == fromInitialList
	if s.listedAt != "" && informed && compareVersions(obj.ResourceVersion, s.listedAt) <= 0 {
		return false // a live list that didn't have it is newer: the pod has gone, or isn't the Job's any more
	}
	if version, ok := s.left[obj.UID]; ok && compareVersions(obj.ResourceVersion, version) <= 0 {
		return false // an answer that comes after the informer has told of the end
	}
	p := &pod{podRef: podRef{FinalizerAt: -1}}
	p.read(obj)
	p.seen = informed
	if p.stage.ended() && !p.tracked() && obj.DeletionTimestamp == nil {
		s.remember(p) // ended and counted in an earlier life of the engine: it still delays
	}
	if !p.tracked() && from != fromInitialList {
		s.awaitJob(obj.ResourceVersion)
	}
	s.pods[obj.UID] = p
	s.resolveName(p.Name)
	s.learnAttempt(p)
	s.enter(p)
	s.noteUnseen(now)
	return true
}

// markDeleting notes that the API has accepted the pod's deletion.
func (s *jobState) markDeleting(uid types.UID, now time.Time) {
	p := s.pods[uid]
	if p == nil || p.stage != stageActive {
		return
	}
	s.withdraw(p)
	p.stage = stageTerminating
	p.endedAt = now
	s.enter(p)
}

// removePod forgets a pod that doesn't exist any more, or isn't the Job's, as of a version. It says whether that is news.
func (s *jobState) removePod(uid types.UID, version string) bool {
	p := s.pods[uid]
	if p == nil {
		return false
	}
	if p.tracked() && !p.letGo {
		s.awaitJob(version)
	}
	s.withdraw(p)
	s.forget(p, version)
	return p.stage != stageGone
}

// forget takes out a pod that is no longer the Job's concern as of a version.
func (s *jobState) forget(p *pod, version string) {
	delete(s.pods, p.UID)
	delete(s.misfits, p.UID)
	if s.left != nil {
		s.left[p.UID] = version
	}
}

// buryPod notes that the pod doesn't exist any more as of the given version, though the informer may yet tell of its past.
func (s *jobState) buryPod(uid types.UID, version string, now time.Time) {
	p := s.pods[uid]
	if p == nil || p.stage == stageGone {
		return
	}
	if p.tracked() {
		s.awaitJob(version)
	}
	s.withdraw(p)
	*p = pod{podRef: podRef{UID: p.UID, Name: p.Name, FinalizerAt: -1, ResourceVersion: version}, stage: stageGone, index: p.index}
	s.enter(p)
	s.noteUnseen(now)
}

// applyList takes over all pods that the Job controls as of a version: those that aren't among them are gone. A list from the informer's
// cache ends the matter; after a live one the informer still has to catch up.
func (s *jobState) applyList(pods []*corev1.Pod, version string, live bool, now time.Time) {
	from := fromInformer
	if live {
		from = fromLiveRead
	}
	listed := make(map[types.UID]struct{}, len(pods))
	for _, obj := range pods {
		listed[obj.UID] = struct{}{}
		s.applyPod(obj, from, now)
	}
	for uid, p := range s.pods {
		if _, ok := listed[uid]; ok || compareVersions(p.ResourceVersion, version) > 0 {
			continue
		}
		if live {
			s.buryPod(uid, version, now)
		} else {
			s.removePod(uid, version)
		}
	}
	if live {
		s.listedAt = version
	}
	if s.podsFrom != "" && compareVersions(version, s.podsFrom) >= 0 {
		s.podsFrom = ""
	}
	s.unseenSince = time.Time{}
	s.noteUnseen(now)
}

// withdraw takes a pod out of all sums and sets, before it changes.
func (s *jobState) withdraw(p *pod) {
	s.count(p, -1)
	s.unqueue(p)
	p.outcome, p.failsIndex, p.verdict = notEnded, false, verdict{}
	delete(s.misfits, p.UID)
	delete(s.imageless, p.UID)
	if s.indexes != nil {
		s.setSurplus(p, false)
		s.indexes.remove(p)
		s.review(p.index)
	}
}

// enter puts a pod into the sums and sets where it now belongs, and forgets it if it belongs nowhere. A misfit isn't counted: it is to be let go.
func (s *jobState) enter(p *pod) {
	if p.seen && p.stage.ended() && !p.tracked() {
		s.forget(p, p.ResourceVersion)
		return
	}
	if s.job != nil && p.stage != stageGone && !s.selector.Matches(labels.Set(p.labels)) {
		s.misfits[p.UID] = p
	} else {
		s.judge(p)
	}
	if p.outcome != notEnded {
		s.remember(p)
		p.waiting = s.waiting.PushBack(p)
	}
	if p.stage == stageActive && !p.pull.none() {
		s.imageless[p.UID] = p
	}
	s.count(p, 1)
	if s.indexes != nil {
		if p.stage != stageGone {
			s.indexes.add(p)
		}
		s.review(p.index)
	}
}

// judge says what the pod's end means, if it has ended.
func (s *jobState) judge(p *pod) {
	if s.job == nil || !p.tracked() {
		return // it is judged once the Job is known
	}
	if p.stage == stageFailed {
		p.verdict = judgeFailure(s.job.Spec.PodFailurePolicy, s.namespace, p.Name, p.end)
	}
	if _, named := s.uncounted[p.UID]; !named {
		p.outcome = s.outcomeOf(p)
	}
	p.failsIndex = s.indexes != nil && s.indexes.inRange(p.index) && (p.stage == stageFailed || p.outcome == failed) &&
		failsIndex(s.job, p.before, p.verdict)
}

// outcomeOf says how the pod's end is to be counted. A pod being deleted counts as failed at once, unless the Job waits for real ends.
func (s *jobState) outcomeOf(p *pod) outcome {
	if !p.stage.ended() && (p.stage != stageTerminating || replacesFailedOnly(s.job)) {
		return notEnded
	}
	switch {
	case s.outOfRange(p):
		return spent
	case p.stage == stageSucceeded:
		return succeeded
	case !p.verdict.counts():
		return spent
	default:
		return failed
	}
}

// remember puts the pod's end into the Job's history.
func (s *jobState) remember(p *pod) {
	if s.outOfRange(p) {
		return
	}
	if p.stage == stageSucceeded {
		s.history = s.history.succeededAt(p.endedAt)
	} else {
		s.history = s.history.failedAt(p.UID, p.endedAt)
	}
}

func (s *jobState) count(p *pod, by int32) {
	switch p.stage {
	case stageActive:
		s.sum.Active += by
		if p.ready {
			s.sum.Ready += by
		}
	case stageTerminating:
		s.sum.Terminating += by
	}
	if p.tracked() {
		s.sum.Tracked += by
	}
	switch p.outcome {
	case succeeded:
		s.sum.Succeeded += by
	case failed:
		s.sum.Failed += by
	}
	s.sum.Restarts += by * p.restarts
	if !p.seen {
		s.sum.unseen += by
	}
}

// noteUnseen keeps the time since when the informer has been behind.
func (s *jobState) noteUnseen(now time.Time) {
	switch {
	case s.sum.unseen == 0:
		s.unseenSince = time.Time{}
	case s.unseenSince.IsZero():
		s.unseenSince = now
	}
}

// behind says whether the pods must be read before the Job can be decided, and else how long the informer may still take to confirm the
// engine's own writes; 0 if there is nothing to confirm.
func (s *jobState) behind(now time.Time) (read bool, confirmIn time.Duration) {
	if s.podsFrom != "" {
		return true, 0
	}
	if s.sum.unseen == 0 {
		return false, 0
	}
	confirmIn = confirmAfter - now.Sub(s.unseenSince)
	return confirmIn <= 0, confirmIn
}

// confirmAfter is how long the informer may take to deliver a version that the engine got from the API, before its cache is asked. It costs
// nothing but a look; it matters only for pods that came and went while the informer's watch was broken.
const confirmAfter = 30 * time.Second
