package jobs

import (
	"context"
	"fmt"
	"sync"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"
)

// reaper deletes finished Jobs once their TTL has passed. It shares nothing with the rest of the engine.
type reaper struct {
	client  kubernetes.Interface
	clock   clock.PassiveClock
	metrics *metrics
	// stopwatch is a clock that can't be set: the time since some moment of this process's life.
	stopwatch func() time.Duration
	// wake asks for reap after the delay.
	wake func(uid types.UID, after time.Duration)

	mu   sync.Mutex
	jobs map[types.UID]mortal
}

// mortal is a finished Job with a TTL.
type mortal struct {
	job *batchv1.Job
	// finishedAt is what the stopwatch showed when the Job was seen to finish; negative if it was finished before.
	finishedAt time.Duration
}

func newReaper(client kubernetes.Interface, c clock.PassiveClock, m *metrics, wake func(types.UID, time.Duration)) *reaper {
	started := c.Now()
	return &reaper{
		client: client, clock: c, metrics: m, wake: wake,
		stopwatch: func() time.Duration { return c.Since(started) },
		jobs:      map[types.UID]mortal{},
	}
}

// observe takes in a version of a Job.
func (r *reaper) observe(job *batchv1.Job, from source) {
	if _, _, limited := ttlLeft(job, time.Time{}, -1); !limited {
		r.forget(job.UID)
		return
	}
	r.mu.Lock()
	m, known := r.jobs[job.UID]
	m.job = job
	switch {
	case known:
	case from == fromInitialList:
		m.finishedAt = -1
	default:
		m.finishedAt = r.stopwatch()
	}
	r.jobs[job.UID] = m
	r.mu.Unlock()
	r.wake(job.UID, 0)
}

func (r *reaper) forget(uid types.UID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.jobs, uid)
}

// left returns how long the Job has yet to be kept; limited is false if it isn't to be deleted at all.
func (r *reaper) left(m mortal, job *batchv1.Job) (left time.Duration, expires time.Time, limited bool) {
	watched := time.Duration(-1)
	if m.finishedAt >= 0 {
		watched = r.stopwatch() - m.finishedAt
	}
	return ttlLeft(job, r.clock.Now(), watched)
}

// reap deletes the Job if its time has come, else it returns when to look again (0: never, unless the Job changes).
func (r *reaper) reap(ctx context.Context, uid types.UID) (again time.Duration, err error) {
	r.mu.Lock()
	m, known := r.jobs[uid]
	r.mu.Unlock()
	if !known {
		return 0, nil
	}
	if left, _, limited := r.left(m, m.job); !limited || left > 0 {
		return max(left, 0), nil
	}
	// The TTL may have been changed since the cache was filled: only the newest version says whether the Job may go.
	fresh, err := r.client.BatchV1().Jobs(m.job.Namespace).Get(ctx, m.job.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || err == nil && fresh.UID != uid {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("reading Job %s/%s, whose TTL has passed: %w", m.job.Namespace, m.job.Name, err)
	}
	left, expired, limited := r.left(m, fresh)
	if !limited || left > 0 {
		return max(left, 0), nil
	}
	policy := metav1.DeletePropagationForeground
	err = r.client.BatchV1().Jobs(fresh.Namespace).Delete(ctx, fresh.Name, metav1.DeleteOptions{
		PropagationPolicy: &policy,
		Preconditions:     &metav1.Preconditions{UID: &fresh.UID, ResourceVersion: &fresh.ResourceVersion},
	})
	if err != nil && !apierrors.IsNotFound(err) {
		return 0, fmt.Errorf("deleting Job %s/%s, whose TTL has passed: %w", fresh.Namespace, fresh.Name, err)
	}
	r.metrics.reaped(r.clock.Since(expired))
	return 0, nil
}
