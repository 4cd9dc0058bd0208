package jobs

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	"errand.dev/errand/internal/podtrace"
)

// engine is the reconciler: events go in, syncs are asked for and carried out. It starts no goroutine that outlives a call.
type engine struct {
	client   kubernetes.Interface
	recorder record.EventRecorder
	clock    clock.PassiveClock
	caches   caches
	wake     wakeups
	limits   limits
	manager  string
	// inFlight bounds how many API requests of one kind one sync makes at a time.
	inFlight int
	metrics  *metrics
	traces   *podtrace.Recorder

	registry *registry
	reaper   *reaper
}

// wakeups asks for syncs. Its methods may be called concurrently.
type wakeups interface {
	// Job asks for a sync of the Job after the delay. Several requests at once are one.
	Job(uid types.UID, after time.Duration)
	// Loose asks for a look at a pod that nothing controls.
	Loose(pod types.NamespacedName, uid types.UID)
}

// owns says whether the Job is this engine's to run (spec.managedBy, KEP-4368).
func (e *engine) owns(job *batchv1.Job) bool {
	return ptr.Deref(job.Spec.ManagedBy, batchv1.JobControllerName) == e.manager
}

// syncJob decides about a Job once and carries out the plan. It returns when to look again if nothing happens until then (0: not needed), or an
// error after which to retry with back-off. It must not run twice at a time for the same Job.
func (e *engine) syncJob(ctx context.Context, uid types.UID) (again time.Duration, err error) {
	s := e.registry.get(uid)
	if s == nil {
		return 0, nil
	}
	s.mu.Lock()
	job, gone := s.job, s.gone
	s.left = map[types.UID]string{}
	s.mu.Unlock()
	defer s.answered()
	switch {
	case gone:
		return 0, e.releaseOrphans(ctx, s)
	case job == nil:
		return 0, e.findJob(ctx, s)
	case !e.owns(job):
		return 0, nil
	}
	if current, err := e.catchUp(ctx, s); err != nil || !current {
		return 0, err
	}
	began := e.clock.Now()
	job, p, confirmIn := e.decide(s, began)
	p.lookAgain(confirmIn)
	if !p.idle() {
		if err = e.carryOut(ctx, s, job, &p, began); err == nil || errors.Is(err, errStale) {
			e.wake.Job(uid, 0) // until there is nothing left to do
			err = nil
		}
	}
	e.metrics.synced(job, &p, err, e.clock.Since(began))
	return p.Again, err
}

// answered notes that no request of a sync is on its way any more.
func (s *jobState) answered() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left = nil
}

func (e *engine) decide(s *jobState, now time.Time) (*batchv1.Job, plan, time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, confirmIn := s.behind(now)
	return s.job, decide(s.job, s.view(now), now, e.limits), confirmIn
}

// findJob looks for a Job of which only pods are known. The informer may just be late; else they are orphans.
func (e *engine) findJob(ctx context.Context, s *jobState) error {
	s.mu.Lock()
	known := len(s.pods)
	s.mu.Unlock()
	if known == 0 {
		e.registry.close(s)
		return nil
	}
	job, err := e.client.BatchV1().Jobs(s.namespace).Get(ctx, s.name, metav1.GetOptions{})
	switch {
	case err == nil && job.UID == s.uid:
		e.learnJob(s, job, fromLiveRead)
		return nil
	case err == nil || apierrors.IsNotFound(err):
		s.bury()
		return e.releaseOrphans(ctx, s)
	default:
		return err
	}
}

// learnJob takes over a version of a Job and asks for a sync if it is news.
func (e *engine) learnJob(s *jobState, job *batchv1.Job, from source) {
	s.mu.Lock()
	first := s.job == nil
	news := s.applyJob(job, from)
	var jilted []*corev1.Pod
	if s.job != nil && (s.job.DeletionTimestamp != nil || isFinished(s.job)) {
		jilted = slices.Collect(maps.Values(s.orphans))
		clear(s.orphans)
	}
	s.mu.Unlock()
	for _, pod := range jilted {
		e.orphaned(pod) // this Job adopts no more
	}
	if first {
		for _, pod := range e.registry.noteSelector(s, job) {
			e.court(s, pod)
		}
	}
	if news {
		e.wake.Job(s.uid, 0)
	}
}
