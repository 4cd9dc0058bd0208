// Package joblogs gathers all logs of a Job: those of pods that are in the API, by the
// API, and those that the nodes keep of pods, and of containers' runs, that are there no
// more, by the nodes' proxy. What is read is therefore what RBAC lets its reader read.
//
// It owns which runs there are, and in which order; it doesn't own what becomes of their
// logs.
package joblogs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// Attempt is one run of a container of a Job's pod.
type Attempt struct {
	Pod       string    `json:"pod"`
	PodUID    types.UID `json:"podUID"`
	Container string    `json:"container"`
	// RestartCount is how many runs of the container in its pod came before.
	RestartCount int32 `json:"restartCount"`
	// Running tells that the run goes on. If it doesn't, and ExitCode is nil, nobody
	// knows how it ended.
	Running    bool      `json:"running,omitempty"`
	ExitCode   *int32    `json:"exitCode,omitempty"`
	Reason     string    `json:"reason,omitempty"`
	StartedAt  time.Time `json:"startedAt,omitzero"`
	FinishedAt time.Time `json:"finishedAt,omitzero"`
	// PodGone tells that the API doesn't have the pod any more.
	PodGone bool `json:"podGone,omitempty"`

	node     string // that keeps the log, "" if it is the pod's in the API
	previous bool   // the log is that of the run before
	place    int    // among the pod's containers
}

// Failed tells whether the run is over, and isn't known to have succeeded.
func (a *Attempt) Failed() bool {
	return !a.Running && (a.ExitCode == nil || *a.ExitCode != 0 || a.Reason == "OOMKilled")
}

// Job is a Job whose logs are read.
type Job struct {
	client          kubernetes.Interface
	namespace, name string
	uid             types.UID
	// Attempts are its runs, in the order of their start.
	Attempts []Attempt
	// Forbidden, unless nil, tells that the reader may not ask for the logs of what is
	// there no more, which are therefore left out; Unanswered which nodes didn't tell
	// of theirs.
	Forbidden, Unanswered error
}

// NotFoundError says that there is no such Job, and nothing left of one, as far as its
// reader may know.
type NotFoundError struct {
	Namespace, Name string
	// Partial, unless nil, tells why more may be left than could be found.
	Partial error
}

func (e *NotFoundError) Error() string {
	if e.Partial != nil {
		return fmt.Sprintf("there is no Job %q in namespace %q; logs may be kept of one that was there, but can't be asked for: %v", e.Name, e.Namespace, e.Partial)
	}
	return fmt.Sprintf("there is no Job %q in namespace %q, nor are logs kept of one that was there: they go an hour after their Job, or earlier if others take their room", e.Name, e.Namespace)
}

// Find looks for a Job, or for what is left of the last of that name, and for its runs.
// The error is a *NotFoundError if there is neither.
func Find(ctx context.Context, client kubernetes.Interface, namespace, name string) (*Job, error) {
	j := &Job{client: client, namespace: namespace, name: name}
	selector := batchv1.JobNameLabel + "=" + name
	job, err := client.BatchV1().Jobs(namespace).Get(ctx, name, metav1.GetOptions{})
	switch {
	case err == nil:
		j.uid = job.UID
		selector = metav1.FormatLabelSelector(job.Spec.Selector)
	case !apierrors.IsNotFound(err):
		return nil, fmt.Errorf("get the Job: %w", err)
	}
	// The pods come first: of one that goes meanwhile the log is kept by then.
	pods, err := client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return nil, fmt.Errorf("list the Job's pods: %w", err)
	}
	kept := j.kept(ctx)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	j.Forbidden, j.Unanswered = kept.forbidden, kept.unanswered
	if j.uid == "" {
		if j.uid = lastOf(name, pods.Items, kept.runs); j.uid == "" {
			return nil, &NotFoundError{namespace, name, cmp.Or(j.Forbidden, j.Unanswered)}
		}
	}
	j.Attempts = merge(j.uid, pods.Items, kept.runs)
	return j, nil
}

// lastOf returns the UID of the last Job of that name, by what is left of it.
func lastOf(name string, pods []v1.Pod, kept []keptRun) (uid types.UID) {
	var last time.Time
	take := func(of types.UID, at time.Time) {
		if uid == "" || at.After(last) {
			uid, last = of, at
		}
	}
	for _, r := range kept {
		take(r.JobUID, r.KeptAt)
	}
	for i := range pods {
		if owner := metav1.GetControllerOf(&pods[i]); owner != nil && owner.Kind == "Job" && owner.Name == name {
			take(owner.UID, pods[i].CreationTimestamp.Time)
		}
	}
	return uid
}

// id tells a run from others.
type id struct {
	pod       types.UID
	container string
	restarts  int32
}

func (a *Attempt) id() id { return id{a.PodUID, a.Container, a.RestartCount} }

// merge returns the Job's runs in the order of their start. What is kept is preferred
// to what the API gives: it is all of the log, however often that was rotated.
func merge(job types.UID, pods []v1.Pod, kept []keptRun) []Attempt {
	there := map[types.UID]bool{}
	var present []Attempt
	for i := range pods {
		if owner := metav1.GetControllerOf(&pods[i]); owner != nil && owner.UID == job {
			there[pods[i].UID] = true
			present = append(present, ofPod(&pods[i])...)
		}
	}
	known := map[id]bool{}
	var all []Attempt
	for _, r := range kept {
		if a := r.attempt(); r.JobUID == job && !known[a.id()] {
			a.PodGone = !there[a.PodUID]
			known[a.id()] = true
			all = append(all, a)
		}
	}
	for _, a := range present {
		if !known[a.id()] {
			all = append(all, a)
		}
	}
	slices.SortFunc(all, inOrder)
	return all
}

// inOrder compares by start. The API tells seconds, and what is kept has more: within a
// second a pod's runs are in the order of their numbers, and then as exact as is known.
func inOrder(a, b Attempt) int {
	return cmp.Or(
		a.StartedAt.Truncate(time.Second).Compare(b.StartedAt.Truncate(time.Second)),
		cmp.Compare(a.Pod, b.Pod),
		cmp.Compare(a.RestartCount, b.RestartCount),
		a.StartedAt.Compare(b.StartedAt),
		cmp.Compare(a.place, b.place),
		cmp.Compare(a.Container, b.Container),
	)
}

// ofPod returns the runs whose logs the API gives: of each container the last, and the
// one before.
func ofPod(pod *v1.Pod) []Attempt {
	var attempts []Attempt
	for place, s := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses, pod.Status.EphemeralContainerStatuses) {
		base := Attempt{Pod: pod.Name, PodUID: pod.UID, Container: s.Name, RestartCount: s.RestartCount, place: place}
		now, last := s.State, s.LastTerminationState.Terminated
		switch {
		case now.Running != nil:
			a := base
			a.Running, a.StartedAt = true, now.Running.StartedAt.Time
			attempts = append(attempts, a)
			base.RestartCount--
		case now.Terminated != nil && now.Terminated.ContainerID != "":
			attempts = append(attempts, base.ended(now.Terminated))
			base.RestartCount--
		}
		if last != nil && last.ContainerID != "" {
			base.previous = true
			attempts = append(attempts, base.ended(last))
		}
	}
	return attempts
}

func (a Attempt) ended(end *v1.ContainerStateTerminated) Attempt {
	a.ExitCode, a.Reason = &end.ExitCode, end.Reason
	a.StartedAt, a.FinishedAt = end.StartedAt.Time, end.FinishedAt.Time
	return a
}

// Open opens the log of a run, from its first line on. By the API, which knows runs but
// as the last and the one before, that of a container that was restarted since the Job
// was found is its next run's.
func (j *Job) Open(ctx context.Context, a *Attempt, timestamps bool) (io.ReadCloser, error) {
	if a.node != "" {
		return j.openKept(ctx, a, timestamps)
	}
	log, err := j.client.CoreV1().Pods(j.namespace).GetLogs(a.Pod, &v1.PodLogOptions{
		Container: a.Container, Previous: a.previous, Timestamps: timestamps,
	}).Stream(ctx)
	if !apierrors.IsNotFound(err) {
		return log, err
	}
	// The pod has just gone.
	kept := j.kept(ctx)
	for _, r := range kept.runs {
		if found := r.attempt(); found.id() == a.id() {
			a.node, a.PodGone = found.node, true
			return j.openKept(ctx, a, timestamps)
		}
	}
	return nil, errors.Join(err, kept.forbidden, kept.unanswered)
}

func (j *Job) openKept(ctx context.Context, a *Attempt, timestamps bool) (io.ReadCloser, error) {
	return j.client.CoreV1().RESTClient().Get().Resource("nodes").Name(a.node).SubResource("proxy").
		Suffix("keptLogs", j.namespace, j.name, string(a.PodUID), a.Container, strconv.Itoa(int(a.RestartCount))).
		Param("timestamps", strconv.FormatBool(timestamps)).Stream(ctx)
}
