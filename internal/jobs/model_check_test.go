package jobs

import (
	"fmt"
	"slices"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// check is called at each write, with the API locked.
func (m *model) check(old, new any) {
	if new == nil {
		m.noteGone(old)
	}
	switch obj := new.(type) {
	case *batchv1.Job:
		if was, ok := old.(*batchv1.Job); ok {
			m.checkStatus(was, obj)
		}
	case *corev1.Pod:
		was, _ := old.(*corev1.Pod)
		if was == nil {
			m.checkCreation(obj)
		} else {
			m.checkRelease(was, obj)
			m.checkHandover(was, obj)
		}
	case nil:
		if was, ok := old.(*corev1.Pod); ok && isTracked(was) {
			is := m.api.log[len(m.api.log)-1].old.(*corev1.Pod)
			m.checkRelease(was, is)
			m.checkHandover(was, is)
		}
	}
}

// noteGone takes in that an object has gone.
func (m *model) noteGone(old any) {
	m.lastGone = len(m.api.log)
	if pod, ok := old.(*corev1.Pod); ok {
		m.freed[jobNameOf(pod)] = true
	}
}

// unknowable says whether nothing tells the engine of the pod yet: an earlier engine created it, the informer's first list was older, and since a pod
// of its Job has gone, there is a free name before its own, so that creating another meets nothing. The informer will show it, and one of them goes.
func (m *model) unknowable(pod *corev1.Pod) bool {
	if !m.freed[jobNameOf(pod)] {
		return false
	}
	born := slices.IndexFunc(m.api.log, func(c change) bool {
		p, ok := c.new.(*corev1.Pod)
		return ok && p.UID == pod.UID
	})
	return born < m.bootedAt && born >= m.decidedAt.pods
}

// jobNameOf returns the name of the Job that the pod was created for, whether it is still the Job's or not.
func jobNameOf(pod *corev1.Pod) string {
	return strings.Join(strings.SplitN(pod.Name, "-", 3)[:2], "-")
}

func uncounted(s *batchv1.JobStatus) (succeeded, failed []types.UID) {
	if u := s.UncountedTerminatedPods; u != nil {
		return u.Succeeded, u.Failed
	}
	return nil, nil
}

// checkStatus: a pod is named once in its life, and the counters rise by just those that cease to be named, whose finalizer is off.
func (m *model) checkStatus(was, is *batchv1.Job) {
	wasS, wasF := uncounted(&was.Status)
	isS, isF := uncounted(&is.Status)
	for _, l := range []struct {
		name    string
		was, is []types.UID
		counted int32
	}{
		{"succeeded", wasS, isS, m.succeededByUID(was, is)},
		{"failed", wasF, isF, is.Status.Failed - was.Status.Failed},
	} {
		var cleared int32
		for _, uid := range l.was {
			if slices.Contains(l.is, uid) {
				continue
			}
			cleared++
			if pod := m.podByUID(uid); pod != nil && isTracked(pod) {
				m.fatal("%s was counted with its finalizer on", pod.Name)
			}
		}
		if cleared != l.counted {
			m.fatal("%s: %s rose by %d, but %d pods were cleared", is.Name, l.name, l.counted, cleared)
		}
		for _, uid := range l.is {
			if slices.Contains(l.was, uid) {
				continue
			}
			if list := m.named[uid]; list != "" {
				m.fatal("%s: pod %s was named as %s again, after %s", is.Name, uid, l.name, list)
			}
			m.named[uid] = l.name
		}
	}
}

// succeededByUID is by how much the counter of successes rose for want of an index. An index succeeds once, and with a pod of its own.
func (m *model) succeededByUID(was, is *batchv1.Job) int32 {
	if !isIndexed(is) {
		return is.Status.Succeeded - was.Status.Succeeded
	}
	before, after := parseIntervals(was.Status.CompletedIndexes, 100), parseIntervals(is.Status.CompletedIndexes, 100)
	if n := is.Status.Succeeded; n != after.total() && n != was.Status.Succeeded {
		m.fatal("%s: succeeded is %d with indexes %s", is.Name, is.Status.Succeeded, is.Status.CompletedIndexes)
	}
	for _, run := range after {
		for i := run.First; i <= run.Last; i++ {
			if !before.has(i) && !m.hasPod(is, i, func(p *corev1.Pod) bool {
				return p.Status.Phase == corev1.PodSucceeded && isTracked(p) || m.flipped[p.UID]
			}) {
				m.fatal("%s: index %d succeeds without a pod", is.Name, i)
			}
		}
	}
	for i := range *is.Spec.Completions {
		if before.has(i) && !after.has(i) && i < *was.Spec.Completions {
			m.fatal("%s: index %d hasn't succeeded any more", is.Name, i)
		}
	}
	return 0
}

// hasPod says whether the Job has such a pod for the index.
func (m *model) hasPod(job *batchv1.Job, index int32, which func(*corev1.Pod) bool) bool {
	for _, p := range m.api.pods {
		if o, _ := jobOwner(p); o != nil && o.UID == job.UID && completionIndex(job.Name, p) == index && which(p) {
			return true
		}
	}
	return false
}

func (m *model) podByUID(uid types.UID) *corev1.Pod {
	for _, p := range m.api.pods {
		if p.UID == uid {
			return p
		}
	}
	return nil
}

// checkRelease: no pod that has ended loses its finalizer before a status has named it, unless nobody is there to count it.
func (m *model) checkRelease(was, is *corev1.Pod) {
	if !isTracked(was) || isTracked(is) || alive(was) || m.named[was.UID] != "" {
		return
	}
	owner, _ := jobOwner(was)
	if owner == nil || is.Labels == nil {
		return
	}
	if job := m.api.jobs[key(was.Namespace, owner.Name)]; job != nil && job.UID == owner.UID && !isFinished(job) && !m.needsNoCount(job, was) {
		m.fatal("%s was released uncounted", was.Name)
	}
}

// needsNoCount says whether an ended pod is of no account, or is counted by its index.
func (m *model) needsNoCount(job *batchv1.Job, pod *corev1.Pod) bool {
	if pod.Status.Phase == corev1.PodFailed && !judgeFailure(job.Spec.PodFailurePolicy, pod.Namespace, pod.Name, readEnd(pod)).counts() {
		return true
	}
	if !isIndexed(job) {
		return false
	}
	index := completionIndex(job.Name, pod)
	over := parseIntervals(job.Status.CompletedIndexes, 100).union(parseIntervals(ptr.Deref(job.Status.FailedIndexes, ""), 100))
	return index >= m.fewestIndexes(job) || over.has(index) && (pod.Status.Phase == corev1.PodSucceeded || m.flipped[pod.UID])
}

// checkHandover: the number of failures of an index isn't lost with the pod that carries it.
func (m *model) checkHandover(was, is *corev1.Pod) {
	owner, _ := jobOwner(was)
	if owner == nil || is.Labels == nil || !isTracked(was) || isTracked(is) || was.Status.Phase != corev1.PodFailed || m.flipped[was.UID] {
		return
	}
	job := m.api.jobs[key(was.Namespace, owner.Name)]
	if job == nil || job.UID != owner.UID || !limitsPerIndex(job) || isFinished(job) || job.DeletionTimestamp != nil || decidedEnd(job.Status.Conditions) != nil {
		return
	}
	index := completionIndex(job.Name, was)
	over := parseIntervals(job.Status.CompletedIndexes, 100).union(parseIntervals(*job.Status.FailedIndexes, 100))
	if index >= m.fewestIndexes(job) || over.has(index) || m.handedOver[was.UID] {
		return
	}
	m.fatal("%s was released before another pod of its index took over its %d failures", was.Name, readIndexFailures(was).total()+1)
}

// fewestIndexes is the smallest number of indexes that the engine may still believe in.
func (m *model) fewestIndexes(job *batchv1.Job) int32 {
	fewest := *job.Spec.Completions
	m.believed(job, func(j *batchv1.Job) { fewest = min(fewest, *j.Spec.Completions) })
	return fewest
}

// checkCreation: never more pods than parallelism, nor than work is left, nor any for a Job that is done.
func (m *model) checkCreation(pod *corev1.Pod) {
	owner, _ := jobOwner(pod)
	job := m.api.jobs[key(pod.Namespace, owner.Name)]
	if job == nil || job.UID != owner.UID {
		return // deleted a moment ago
	}
	if isFinished(job) {
		m.fatal("%s was created for a finished Job", pod.Name)
	}
	var active, done int32
	for _, p := range m.api.pods {
		if o, _ := jobOwner(p); o == nil || o.UID != job.UID || m.unknowable(p) {
			continue
		}
		switch {
		case stageOf(p.Status.Phase, p.DeletionTimestamp != nil) == stageActive:
			active++
		case p.Labels == nil:
			// it has ended, and the Job is to let it go
		case p.Status.Phase == corev1.PodSucceeded && isTracked(p) && m.named[p.UID] == "" && p.DeletionTimestamp == nil && !m.flipped[p.UID]:
			done++
		}
	}
	if isIndexed(job) {
		m.checkIndex(job, pod)
		// The index is what counts, and only those that are left of a Job that was made smaller.
		done = parseIntervals(job.Status.CompletedIndexes, m.mostCompletions(job)).total()
	} else {
		s, _ := uncounted(&job.Status)
		done += job.Status.Succeeded + int32(len(s))
	}
	if most := m.mostParallelism(job); active > most {
		m.fatal("%s is one of %d active pods, parallelism is %d", pod.Name, active, most)
	}
	if job.Spec.Completions == nil {
		return
	}
	if most := m.mostCompletions(job); active+done > most {
		m.fatal("%s is more than is needed: %d active and %d done of %d", pod.Name, active, done, most)
	}
}

// checkIndex: an index has one active pod at a time, none any more once it has succeeded or was given up, and each knows how often it has failed.
func (m *model) checkIndex(job *batchv1.Job, pod *corev1.Pod) {
	index := completionIndex(job.Name, pod)
	if index >= m.mostCompletions(job) {
		m.fatal("%s has an index that the Job doesn't", pod.Name)
	}
	if parseIntervals(job.Status.CompletedIndexes, 100).has(index) || parseIntervals(ptr.Deref(job.Status.FailedIndexes, ""), 100).has(index) {
		m.fatal("%s is for an index that is over", pod.Name)
	}
	for _, p := range m.api.pods {
		if o, _ := jobOwner(p); p.UID == pod.UID || o == nil || o.UID != job.UID || p.Labels == nil || completionIndex(job.Name, p) != index {
			continue
		}
		if m.unknowable(p) {
			m.handedOver[p.UID] = true
			continue
		}
		if stageOf(p.Status.Phase, p.DeletionTimestamp != nil) == stageActive {
			m.fatal("%s has the index of %s", pod.Name, p.Name)
		}
		if !limitsPerIndex(job) || !isTracked(p) || p.Status.Phase != corev1.PodFailed {
			continue
		}
		if before := readIndexFailures(p); readIndexFailures(pod).total() <= before.total() && !m.flipped[p.UID] {
			m.fatal("%s knows of no more failures than %s", pod.Name, p.Name)
		}
		m.handedOver[p.UID] = true
	}
}

// mostParallelism and mostCompletions are the largest that the engine may still believe in.
func (m *model) mostParallelism(job *batchv1.Job) int32 {
	most := *job.Spec.Parallelism
	m.believed(job, func(j *batchv1.Job) { most = max(most, *j.Spec.Parallelism) })
	return most
}

func (m *model) mostCompletions(job *batchv1.Job) int32 {
	most := *job.Spec.Completions
	m.believed(job, func(j *batchv1.Job) { most = max(most, *j.Spec.Completions) })
	return most
}

// believed calls see with the versions of the Job that the engine may take for the newest.
func (m *model) believed(job *batchv1.Job, see func(*batchv1.Job)) {
	for i := len(m.api.log) - 1; i >= 0; i-- {
		j, ok := m.api.log[i].new.(*batchv1.Job)
		if !ok || j.UID != job.UID {
			continue
		}
		see(j)
		if i < m.decidedAt.jobs {
			break
		}
	}
}

// conclude lets everything come to its end, and checks that it does.
func (m *model) conclude() {
	m.note("conclude")
	m.next = fault{}
	for i := range m.jobs {
		if job := m.api.job("default", fmt.Sprintf("job-%d", i+1)); job != nil {
			m.api.editJob("default", job.Name, func(j *batchv1.Job) {
				j.Spec.Suspend = ptr.To(false)
				j.Spec.Parallelism = ptr.To(max(*j.Spec.Parallelism, 1))
			})
		}
	}
	for round := 0; ; round++ {
		m.rest()
		m.collect(nil)
		for _, pod := range m.api.podsOf(nil) {
			if alive(pod) {
				m.end(pod, corev1.PodSucceeded)
			}
		}
		m.rest()
		m.clock.SetTime(m.clock.Now().Add(11 * time.Minute))
		if m.over() {
			break
		}
		if round == 60 {
			m.fatal("doesn't end: %s", m.describe())
		}
	}
	m.rest()
	m.checkEnd()
}

func (m *model) rest() {
	for n := 0; ; n++ {
		m.deliver()
		if !m.syncOnce() && m.podsAt == len(m.api.log) && m.jobsAt == len(m.api.log) {
			return
		}
		if n > 5000 {
			m.fatal("the engine doesn't come to rest: %s", m.describe())
		}
	}
}

func (m *model) over() bool {
	for i := range m.jobs {
		if job := m.api.job("default", fmt.Sprintf("job-%d", i+1)); job != nil && !isFinished(job) {
			return false
		}
	}
	return true
}

func (m *model) describe() string {
	var out string
	for i := range m.jobs {
		if job := m.api.job("default", fmt.Sprintf("job-%d", i+1)); job != nil {
			out += fmt.Sprintf("\n%s rv=%s deleting=%v status=%+v", job.Name, job.ResourceVersion, job.DeletionTimestamp != nil, job.Status)
		}
	}
	for _, p := range m.api.podsOf(nil) {
		out += fmt.Sprintf("\n  %s rv=%s %s tracked=%v deleting=%v", p.Name, p.ResourceVersion, p.Status.Phase, isTracked(p), p.DeletionTimestamp != nil)
	}
	return out
}

// checkEnd: at rest nothing keeps the finalizer, and the counters are those of the pods that were named.
func (m *model) checkEnd() {
	for _, pod := range m.api.podsOf(nil) {
		if isTracked(pod) {
			m.fatal("%s keeps the finalizer: %s", pod.Name, m.describe())
		}
	}
	for i := range m.jobs {
		job := m.api.job("default", fmt.Sprintf("job-%d", i+1))
		if job == nil {
			continue
		}
		if s, f := uncounted(&job.Status); len(s)+len(f) > 0 || job.Status.Active != 0 || ptr.Deref(job.Status.Terminating, 0) != 0 {
			m.fatal("%s isn't at rest: %s", job.Name, m.describe())
		}
	}
	for uid, s := range m.engine.registry.jobs {
		if s.sum != (sums{}) || s.waiting.Len() > 0 || len(s.pods) > 0 {
			m.fatal("state of %s keeps %+v, %d pods", uid, s.sum, len(s.pods))
		}
	}
}
