package jobrun

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// Wait waits until all Jobs of these names have ended, well or badly, and tells each
// one's end as it comes; a deletion is an end. When ctx ends before, it returns with
// ctx's error, having told where the others stand, with the state Unfinished, and, if
// it was by its deadline, what they wait for.
//
// A Job that doesn't exist, or can't be watched by this caller, is an error at once.
func Wait(ctx context.Context, client kubernetes.Interface, output *Output, namespace string, names []string, tell func(End)) error {
	w := &waiter{tell: tell, connection: connection{output: output}, open: map[string]*batchv1.Job{}, leaving: map[types.UID]bool{}}
	for _, name := range names {
		if w.open[name] != nil {
			continue
		}
		job, err := client.BatchV1().Jobs(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return getError(namespace, name, err)
		}
		w.open[name] = job
	}
	for _, name := range names {
		if job := w.open[name]; job != nil {
			w.see(job)
			if stands := standing(job); stands != "" && w.open[name] != nil {
				output.Say("job/%s %s", name, stands)
			}
		}
	}
	if len(w.open) == 0 {
		return nil
	}
	return w.watch(ctx, client, namespace)
}

// getError says why a Job can't be had.
func getError(namespace, name string, err error) error {
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("there is no job/%s in the namespace %s", name, namespace)
	}
	return fmt.Errorf("read job/%s: %w", name, err)
}

// waiter waits for the Jobs that are open.
type waiter struct {
	tell       func(End)
	connection connection
	open       map[string]*batchv1.Job // by name, as seen last
	leaving    map[types.UID]bool      // it has been said of them that they are being deleted
	refused    error
}

func (w *waiter) watch(ctx context.Context, client kubernetes.Interface, namespace string) error {
	watching, stop := context.WithCancel(ctx)
	watches := newWatches(client)
	defer watches.await()
	defer stop()
	alone := ""
	if len(w.open) == 1 {
		for alone = range w.open {
		}
	}
	there := map[string]bool{}
	watches.watchJobs(watching, namespace, alone, told[*batchv1.Job]{
		seen: func(job *batchv1.Job) {
			there[job.Name] = true
			w.see(job)
		},
		gone: w.gone,
		synced: func() {
			for name, job := range w.open {
				if !there[name] {
					w.gone(job)
				}
			}
		},
		lost: func(err error) {
			if apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) {
				w.refused = fmt.Errorf("watch the Jobs of the namespace %s: %w", namespace, err)
				return
			}
			w.connection.err(err)
		},
		back: w.connection.back,
	})
	for len(w.open) > 0 && w.refused == nil {
		select {
		case call := <-watches.calls:
			call()
		case <-ctx.Done():
			for _, name := range slices.Sorted(maps.Keys(w.open)) {
				job := w.open[name]
				w.tell(End{Job: job, HoldUp: holdUpNow(ctx, client, job)})
			}
			return context.Cause(ctx)
		}
	}
	return w.refused
}

// lastLook is how long the question may take what an unfinished Job waits for.
const lastLook = 5 * time.Second

// holdUpNow asks for a Job's pods, and says what holds up the first that is held up, or
// the Job itself; "" where nothing does, or that can't be had. Ctx has ended: only if it
// was by its deadline is there somebody who wants to know.
func holdUpNow(ctx context.Context, client kubernetes.Interface, job *batchv1.Job) string {
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return ""
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastLook)
	defer cancel()
	pods, err := client.CoreV1().Pods(job.Namespace).List(ctx, metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(job.Spec.Selector)})
	if err != nil {
		return ""
	}
	left := 0
	for i := range pods.Items {
		if why := podHoldUp(&pods.Items[i], nil); why != "" {
			return "pod " + pods.Items[i].Name + " " + why
		}
		if !ended(&pods.Items[i]) {
			left++
		}
	}
	if why := jobHoldUp(job, len(pods.Items) > 0, left, nil); why != "" {
		return "it " + why
	}
	return ""
}

func (w *waiter) see(job *batchv1.Job) {
	known := w.open[job.Name]
	if known == nil {
		return
	}
	if known.UID != job.UID {
		w.gone(known) // another one has its name
		return
	}
	w.open[job.Name] = job
	if end := endOf(job); end.State != Unfinished {
		w.end(end)
		return
	}
	if job.DeletionTimestamp != nil && !w.leaving[job.UID] {
		w.leaving[job.UID] = true
		w.connection.output.Say("job/%s %s", job.Name, deletion(job, 0))
	}
}

func (w *waiter) gone(job *batchv1.Job) {
	if known := w.open[job.Name]; known != nil && known.UID == job.UID {
		w.end(goneEnd(job))
	}
}

func (w *waiter) end(end End) {
	delete(w.open, end.Job.Name)
	w.tell(end)
}
