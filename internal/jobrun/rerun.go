package jobrun

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"
)

// RerunOf is the annotation of a Job that was made from another one: the name of the
// first of them, from which the next one's name is made.
const RerunOf = "errand.dev/rerun-of"

// maxName is how long a Job's name can be: it is a label of its pods.
const maxName = 63

// How says how a Job is to be run again.
type How struct {
	// Name is the new Job's; "" for the old one's with the next free number.
	Name string
	// Replace deletes the old Job, with its pods, and keeps its name.
	Replace bool
}

// Rerun creates the Job of that name anew. With Replace it returns once the old one is
// gone and the new one there; say is told what it waits for.
func Rerun(ctx context.Context, client kubernetes.Interface, output *Output, namespace, name string, how How) (*batchv1.Job, error) {
	old, err := client.BatchV1().Jobs(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, getError(namespace, name, err)
	}
	switch {
	case how.Replace:
		return replace(ctx, client, output, old)
	case how.Name != "":
		return Create(ctx, client, again(old, how.Name))
	}
	first := firstName(old)
	for n := 2; ; n++ {
		next := again(old, numbered(old, n))
		next.Annotations[RerunOf] = first
		job, err := Create(ctx, client, next)
		if !apierrors.IsAlreadyExists(err) {
			return job, err
		}
	}
}

// replace puts a Job in another's place. The API is asked first whether it would take
// it: what it refuses must not cost the old one.
func replace(ctx context.Context, client kubernetes.Interface, output *Output, old *batchv1.Job) (*batchv1.Job, error) {
	job := again(old, old.Name)
	trial := job.DeepCopy()
	trial.Name, trial.GenerateName = "", numbered(old, 0)
	_, err := client.BatchV1().Jobs(old.Namespace).Create(ctx, trial, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err != nil {
		return nil, fmt.Errorf("job/%s can't be created anew, and is left as it is: %w", old.Name, err)
	}
	if endOf(old).State == Unfinished {
		output.Say("job/%s has not ended; it is deleted with its pods", old.Name)
	}
	if err := Delete(ctx, client, old, metav1.DeletePropagationForeground); err != nil {
		return nil, err
	}
	if err := awaitGone(ctx, client, output, old); err != nil {
		return nil, err
	}
	// Nothing stops between the old one and the new.
	return Create(context.WithoutCancel(ctx), client, job)
}

// awaitGone waits until a Job that is being deleted is gone, and says what it waits for
// once that takes its time.
func awaitGone(ctx context.Context, client kubernetes.Interface, output *Output, job *batchv1.Job) error {
	watching, stop := context.WithCancel(ctx)
	watches := newWatches(client)
	defer watches.await()
	defer stop()
	var there, gone bool
	var refused error
	lost := connection{output: output}
	due := time.NewTimer(holdUpAfter)
	defer due.Stop()
	why, said, slow := "", "", false
	watches.watchJobs(watching, job.Namespace, job.Name, told[*batchv1.Job]{
		seen: func(other *batchv1.Job) {
			there = true
			gone = gone || other.UID != job.UID
			if other.DeletionTimestamp != nil {
				why = deletion(other, 0)
			}
		},
		gone:   func(*batchv1.Job) { gone = true },
		synced: func() { gone = gone || !there },
		lost: func(err error) {
			if apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) {
				refused = fmt.Errorf("job/%s is being deleted, and isn't created anew, since its end can't be watched: %w", job.Name, err)
				return
			}
			lost.err(err)
		},
		back: lost.back,
	})
	for !gone && refused == nil {
		select {
		case call := <-watches.calls:
			call()
		case <-due.C:
			slow = true
		case <-ctx.Done():
			return fmt.Errorf("job/%s is being deleted, and isn't created anew: %w", job.Name, context.Cause(ctx))
		}
		if slow && !gone && why != said {
			said = why
			output.Say("job/%s %s", job.Name, why)
		}
	}
	return refused
}

// firstName is the name of the first of a Job's runs.
func firstName(job *batchv1.Job) string {
	if first := job.Annotations[RerunOf]; first != "" {
		return first
	}
	return job.Name
}

// numbered is the name of a Job's next run: the first one's with a number; cut so that
// it stays a name for a Job, and for its pods' hosts. 0 stands for the beginning of
// a name that the API makes.
func numbered(old *batchv1.Job, n int) string {
	stem, suffix, room := firstName(old), "-", maxName
	if n > 0 {
		suffix = fmt.Sprintf("-%d", n)
	}
	if ptr.Deref(old.Spec.CompletionMode, batchv1.NonIndexedCompletion) == batchv1.IndexedCompletion {
		room -= len(fmt.Sprintf("-%d", max(ptr.Deref(old.Spec.Completions, 1)-1, 0)))
	}
	if n == 0 {
		room -= 5 // what the API puts there
	}
	stem = stem[:min(len(stem), max(room-len(suffix), 1))]
	return strings.TrimRight(stem, "-.") + suffix
}

// again is a Job with another's spec and nothing that its server, controllers or
// owners put there; not suspended.
func again(old *batchv1.Job, name string) *batchv1.Job {
	spec := *old.Spec.DeepCopy()
	spec.Suspend = ptr.To(false)
	manual := ptr.Deref(spec.ManualSelector, false)
	if !manual {
		spec.Selector = nil
		for _, label := range madeLabels {
			delete(spec.Template.Labels, label)
		}
	}
	labels := copyOf(old.Labels)
	for _, label := range madeLabels {
		switch {
		case labels[label] == string(old.UID):
			delete(labels, label)
		case labels[label] == old.Name:
			labels[label] = name // its own author's, after the Job
		}
	}
	annotations := copyOf(old.Annotations)
	if name != old.Name {
		delete(annotations, RerunOf)
	}
	for _, annotation := range madeAnnotations {
		delete(annotations, annotation)
	}
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: old.Namespace, Labels: labels, Annotations: annotations},
		Spec:       spec,
	}
}

// copyOf copies a map, or makes one.
func copyOf(m map[string]string) map[string]string {
	c := make(map[string]string, len(m))
	maps.Copy(c, m)
	return c
}

// madeLabels are those by which a Job finds its pods; the API makes them anew.
var madeLabels = []string{batchv1.ControllerUidLabel, batchv1.JobNameLabel, "controller-uid", "job-name"}

// madeAnnotations tell of the old Job alone: of the file it was applied from, of the
// time a CronJob made it for, of its tracking.
var madeAnnotations = []string{
	"kubectl.kubernetes.io/last-applied-configuration",
	batchv1.CronJobScheduledTimestampAnnotation,
	"cronjob.kubernetes.io/instantiate",
	batchv1.JobTrackingFinalizer,
}
