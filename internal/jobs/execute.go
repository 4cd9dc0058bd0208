package jobs

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
)

// errUnfit is what a deed on a pod ends with if the pod wasn't as the plan took it to be. The newest version is known by then.
var errUnfit = errors.New("the pod has changed")

// carryOut does what the plan says. A deed that fails is held back for a while and the Job decided anew, so that one failing deed keeps nothing else
// from happening; an error is returned only if the status can't be written. The sync began when it is said to have.
func (e *engine) carryOut(ctx context.Context, s *jobState, job *batchv1.Job, p *plan, began time.Time) error {
	if len(p.Claim) > 0 {
		e.attempt(ctx, s, deedClaim, len(p.Claim), func(i int) error { return e.claim(ctx, s, job, p.Claim[i]) })
		return nil
	}
	ok := e.create(ctx, s, job, p.Create, began)
	ok = e.resolve(ctx, s, p.Resolve) && ok
	ok = e.delete(ctx, s, job, p.Delete) && ok
	if !ok {
		return nil
	}
	if p.Status != nil {
		if err := e.writeStatus(ctx, s, job, p.Status); err != nil {
			return err
		}
	}
	e.attempt(ctx, s, deedRelease, len(p.Release), func(i int) error {
		r := p.Release[i]
		err := e.release(ctx, s, r.podRef, r.Unchanged)
		if err == nil && r.Handled != "" {
			e.metrics.handled(r.Handled)
		}
		if err == nil && !r.Unchanged {
			e.traceCount(s, r.podRef, began)
		}
		return err
	})
	for _, ev := range p.Events {
		e.recorder.Event(job, ev.Type, ev.Reason, ev.Message)
	}
	return nil
}

// attempt does a deed n times in parallel and says whether each succeeded. After a failure no more are begun, and the deed is held back; that a
// pod wasn't as expected is no failure, but needs a new decision.
func (e *engine) attempt(ctx context.Context, s *jobState, d deed, n int, do func(i int) error) bool {
	if n == 0 {
		return true
	}
	err := inParallel(n, e.inFlight, do)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil:
		s.held.clear(d)
		return true
	case errors.Is(err, errUnfit):
		return false
	case ctx.Err() != nil:
		return false
	}
	asked, _ := apierrors.SuggestsClientDelay(err)
	s.held.fail(d, e.clock.Now(), time.Duration(asked)*time.Second)
	logger := klog.FromContext(ctx).WithValues("job", klog.KRef(s.namespace, s.name), "wait", s.held.wait(d, e.clock.Now()).Round(time.Millisecond))
	if d == deedCreate && isRefusal(err) {
		logger.V(2).Info("Job: a pod is refused; will try again", "err", err)
	} else {
		logger.Error(err, "Job: will try again")
	}
	return false
}

// isRefusal says whether the API took the request and won't have it: a quota, a name of nothing, a field. Of a pod's creation it is for the
// Job's author to mend, whom an event tells, and no error of the engine's.
func isRefusal(err error) bool { return apierrors.IsForbidden(err) || apierrors.IsInvalid(err) }

// inParallel calls do for 0 … n-1, at most limit at a time, in order of their beginnings. After a failure none is begun any more. It returns
// the first error.
func inParallel(n, limit int, do func(i int) error) error {
	if limit <= 1 || n == 1 {
		for i := range n {
			if err := do(i); err != nil {
				return err
			}
		}
		return nil
	}
	var (
		next  atomic.Int64
		stop  atomic.Bool
		once  sync.Once
		first error
		wg    sync.WaitGroup
	)
	for range min(n, limit) {
		wg.Go(func() {
			for !stop.Load() {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := do(i); err != nil {
					once.Do(func() { first = err })
					stop.Store(true)
				}
			}
		})
	}
	wg.Wait()
	return first
}

// writeStatus writes the Job's status on top of the version that was decided about. If the Job has changed since, the newest version is read, and
// the Job will be decided anew.
func (e *engine) writeStatus(ctx context.Context, s *jobState, job *batchv1.Job, status *batchv1.JobStatus) error {
	update := job.DeepCopy()
	update.Status = *status
	s.send(&update.Status)
	written, err := e.client.BatchV1().Jobs(job.Namespace).UpdateStatus(ctx, update, metav1.UpdateOptions{})
	switch {
	case err == nil:
		s.mu.Lock()
		defer s.mu.Unlock()
		s.sent = nil
		e.metrics.counted(job, &written.Status)
		e.traceJob(s, job, written)
		if start := status.StartTime; start != nil && (job.Status.StartTime == nil || !start.Equal(job.Status.StartTime)) {
			s.startedAt = e.clock.Now()
		}
		s.applyJob(written, fromOwnWrite)
		return nil
	case apierrors.IsConflict(err), apierrors.IsNotFound(err):
		s.send(nil)
		return e.rereadJob(ctx, s)
	default:
		return fmt.Errorf("writing the status of Job %s/%s: %w", job.Namespace, job.Name, err)
	}
}

// send notes the status that is on its way to the API; nil if none is.
func (s *jobState) send(status *batchv1.JobStatus) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent = status
}

// rereadJob reads the Job live, after it turned out that the version known is old.
func (e *engine) rereadJob(ctx context.Context, s *jobState) error {
	job, err := e.client.BatchV1().Jobs(s.namespace).Get(ctx, s.name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err) || err == nil && job.UID != s.uid:
		s.bury()
		return errStale
	case err != nil:
		return fmt.Errorf("reading Job %s/%s: %w", s.namespace, s.name, err)
	default:
		e.learnJob(s, job, fromLiveRead)
		return errStale
	}
}

// errStale ends a sync whose Job has changed since it was decided about. It isn't an error: the Job is decided anew.
var errStale = errors.New("the Job has changed")

// eventf records an event about the Job.
func (e *engine) eventf(job *batchv1.Job, kind, reason, format string, args ...any) {
	e.recorder.Eventf(job, kind, reason, format, args...)
}

// learnPod takes over what the API answered about one of the Job's pods.
func (e *engine) learnPod(s *jobState, pod *corev1.Pod, from source) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := e.clock.Now()
	if owner, _ := jobOwner(pod); owner == nil || owner.UID != s.uid {
		s.buryPod(pod.UID, pod.ResourceVersion, now)
		return
	}
	s.applyPod(pod, from, now)
}
