package jobrun

import (
	"context"
	"fmt"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"
)

// holdUpAfter is how long something may take before it is said what it waits for.
const holdUpAfter = 2 * time.Second

// Follow follows a Job to its end: it copies its pods' logs to output, says what holds
// it up, and returns how it ended, once all logs have been read. What the API has no more
// is had from kept, unless that is nil.
//
// When ctx ends, the Job is deleted with its pods, and Follow returns once it is gone.
func Follow(ctx context.Context, client kubernetes.Interface, output *Output, kept KeptLog, job *batchv1.Job) (End, error) {
	// What follows the Job outlives ctx: it is to see the Job's end.
	following, stop := context.WithCancel(context.WithoutCancel(ctx))
	f := &follower{
		client: client, output: output, ctx: following, job: job,
		watches:    newWatches(client),
		connection: connection{output: output},
		pods:       map[types.UID]*corev1.Pod{},
		since:      map[types.UID]time.Time{},
		said:       map[string]bool{},
		due:        time.NewTimer(holdUpAfter),
	}
	f.logs = newLogs(f.watches, output, kept)
	defer f.logs.running.Wait()
	defer f.watches.await()
	defer f.due.Stop()
	defer stop()
	// More than one pod at once, or one after the other by plan; not that a second one
	// may follow upon a failure.
	f.logs.many.Store(ptr.Deref(job.Spec.Completions, 1) > 1 || ptr.Deref(job.Spec.Parallelism, 1) > 1)
	f.watch()
	f.look()
	return f.loop(ctx)
}

// follower follows one Job. All of its fields are the loop's.
type follower struct {
	client     kubernetes.Interface
	output     *Output
	ctx        context.Context // ends with Follow
	watches    *watches
	connection connection
	logs       *logs
	failures   failures

	job    *batchv1.Job
	there  bool // the watch has told of the Job
	isGone bool
	fatal  error
	pods   map[types.UID]*corev1.Pod // those that have not ended
	order  []types.UID               // of them, as they were seen first
	made   bool                      // a pod, at least

	stands string // what is said of it at once
	since  map[types.UID]time.Time
	said   map[string]bool
	due    *time.Timer
	events *eventsAbout // the object that is held up
	ofJob  *eventsAbout
}

func (f *follower) loop(ctx context.Context) (End, error) {
	interrupted := ctx.Done()
	state := Deleted
	for f.fatal == nil {
		end := endOf(f.job)
		switch {
		case f.isGone && (interrupted == nil || end.State == Unfinished):
			end.State = state
			return end, nil
		case interrupted != nil && end.State != Unfinished:
			return f.end(ctx, end), nil
		}
		select {
		case call := <-f.watches.calls:
			call()
			f.look()
		case <-f.due.C:
			f.look()
		case <-interrupted:
			interrupted, state = nil, Interrupted
			f.output.Say("deleting job/%s and its pods; a second Ctrl-C leaves at once", f.job.Name)
			if err := Delete(f.ctx, f.client, f.job, metav1.DeletePropagationForeground); err != nil {
				return End{}, err
			}
		}
	}
	return End{}, f.fatal
}

// watch begins the watches of the Job and of its pods.
func (f *follower) watch() {
	lost := func(what string, isFatal bool) func(error) {
		refused := false
		return func(err error) {
			switch {
			case !apierrors.IsForbidden(err) && !apierrors.IsUnauthorized(err):
				f.connection.err(err)
			case isFatal:
				f.fatal = fmt.Errorf("watch %s: %w", what, err)
			case !refused:
				refused = true
				f.output.Say("%s can't be watched, so that there are no logs: %v", what, err)
			}
		}
	}
	f.watches.watchJobs(f.ctx, f.job.Namespace, f.job.Name, told[*batchv1.Job]{
		seen: func(job *batchv1.Job) {
			if job.UID != f.job.UID {
				f.isGone = true // another one has its name
				return
			}
			f.there, f.job = true, job
		},
		gone: func(job *batchv1.Job) {
			if job.UID == f.job.UID {
				f.isGone, f.job = true, job
			}
		},
		synced: func() { f.isGone = f.isGone || !f.there },
		lost:   lost("job/"+f.job.Name, true),
		back:   f.connection.back,
	})
	f.watches.watchPods(f.ctx, f.job, told[*corev1.Pod]{
		seen:   f.seePod,
		gone:   f.losePod,
		over:   ended,
		synced: func() {},
		lost:   lost("the pods of job/"+f.job.Name, false),
		back:   f.logs.back,
	})
}

func (f *follower) seePod(pod *corev1.Pod) {
	if !metav1.IsControlledBy(pod, f.job) {
		return
	}
	f.made = true
	switch {
	case ended(pod):
		delete(f.pods, pod.UID)
	case f.pods[pod.UID] == nil:
		f.order = append(f.order, pod.UID)
		fallthrough
	default:
		f.pods[pod.UID] = pod
	}
	f.failures.see(pod)
	f.logs.see(f.ctx, pod)
}

func (f *follower) losePod(pod *corev1.Pod) {
	f.seePod(pod) // its last state may tell something new
	delete(f.pods, pod.UID)
	f.logs.gone(pod)
}

// end waits for all logs of a Job that has ended, unless ctx ends before. The two
// watches aren't in step, so the pods are asked for once more.
func (f *follower) end(ctx context.Context, end End) End {
	pods, err := f.client.CoreV1().Pods(f.job.Namespace).List(ctx, metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(f.job.Spec.Selector)})
	if err == nil {
		for i := range pods.Items {
			f.seePod(&pods.Items[i])
		}
	}
	f.logs.finish()
	for f.logs.open > 0 && ctx.Err() == nil {
		select {
		case call := <-f.watches.calls:
			call()
		case <-ctx.Done():
		}
	}
	end.Code = f.failures.code
	return end
}

// Delete deletes a Job, and no other of its name. One that is gone already is no error.
func Delete(ctx context.Context, client kubernetes.Interface, job *batchv1.Job, how metav1.DeletionPropagation) error {
	err := client.BatchV1().Jobs(job.Namespace).Delete(ctx, job.Name, metav1.DeleteOptions{
		PropagationPolicy: &how,
		Preconditions:     &metav1.Preconditions{UID: &job.UID},
	})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("delete job/%s: %w", job.Name, err)
	}
	return nil
}
