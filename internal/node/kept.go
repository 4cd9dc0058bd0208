package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/klog/v2"

	"errand.dev/errand/internal/node/crispec"
	"errand.dev/errand/internal/node/keptlogs"
	"errand.dev/errand/internal/node/runtimepod"
)

// removalPatience is how long KeptLogs waits for pods that are being removed: less
// than errand logs waits for a node.
const removalPatience = 8 * time.Second

// keepLogs has the logs kept of a pod that is about to be removed, if it is a Job's.
// Nothing of the pod may have been removed before. What can't be kept is not: the
// pod goes all the same. An error means that the agent is being stopped.
func (w *worker) keepLogs(ctx context.Context, pod *v1.Pod, rt *runtimepod.Pod) error {
	if w.n.cfg.KeptLogs == nil {
		return nil
	}
	if pod != nil {
		known := *rt
		known.Namespace, known.Name, known.Containers = pod.Namespace, pod.Name, slices.Clone(rt.Containers)
		rt = &known
		previous := w.previous(pod)
		rt.AddLost(previous.InitContainerStatuses...)
		rt.AddLost(previous.ContainerStatuses...)
		rt.AddLost(previous.EphemeralContainerStatuses...)
	}
	runs, err := w.withLogs(rt)
	if err != nil {
		klog.FromContext(ctx).Error(err, "Cannot look for logs of a pod that the runtime doesn't know of")
	}
	for _, run := range runs {
		if err := w.keepRun(ctx, pod, rt, run); err != nil {
			return err
		}
	}
	return nil
}

// keepRun has the log of a run that is over kept, if its pod is a Job's.
func (w *worker) keepRun(ctx context.Context, pod *v1.Pod, rt *runtimepod.Pod, run *runtimepod.Container) error {
	job := rt.Job
	if pod != nil {
		job = runtimepod.JobOf(pod)
	}
	if w.n.cfg.KeptLogs == nil || job == (runtimepod.Job{}) || rt.Name == "" {
		return nil
	}
	kept := keptlogs.Run{
		Namespace: rt.Namespace, JobName: job.Name, JobUID: job.UID, PodName: rt.Name, PodUID: w.uid,
		Container: run.Name, RestartCount: run.RestartCount, StartedAt: run.StartedAt, FinishedAt: run.FinishedAt,
	}
	if run.State == runtimepod.Exited {
		kept.Ended = &keptlogs.End{ExitCode: run.ExitCode, Reason: run.Reason}
	}
	err := w.n.cfg.KeptLogs.Keep(ctx, kept, w.runLog(rt, run))
	if err != nil && ctx.Err() == nil {
		klog.FromContext(ctx).Error(err, "The log of a container of a Job is lost", "pod", klog.KRef(rt.Namespace, rt.Name), "container", run.Name)
		return nil
	}
	return err
}

func (w *worker) runLog(rt *runtimepod.Pod, run *runtimepod.Container) string {
	return filepath.Join(w.n.spec.PodLogDir(rt.Namespace, rt.Name, w.uid), crispec.ContainerLog(run.Name, run.RestartCount))
}

var logName = regexp.MustCompile(`^(\d+)\.log`)

// withLogs returns the pod's runs, and those of which there are but logs, whose ends
// nobody knows: the runtime may have lost its containers, or been rid of them.
func (w *worker) withLogs(rt *runtimepod.Pod) ([]*runtimepod.Container, error) {
	type id struct {
		container string
		restarts  int32
	}
	known := sets.New[id]()
	var runs []*runtimepod.Container
	for _, c := range rt.Containers {
		if c.State != runtimepod.Created {
			known.Insert(id{c.Name, c.RestartCount})
			runs = append(runs, c)
		}
	}
	if rt.Name == "" {
		return runs, nil
	}
	dir := w.n.spec.PodLogDir(rt.Namespace, rt.Name, w.uid)
	containers, err := os.ReadDir(dir)
	var errs []error
	for _, c := range containers {
		if !c.IsDir() {
			continue
		}
		logs, err := logsOf(filepath.Join(dir, c.Name()))
		errs = append(errs, err)
		for n := range logs {
			if !known.Has(id{c.Name(), n}) {
				runs = append(runs, &runtimepod.Container{Name: c.Name(), RestartCount: n})
			}
		}
	}
	if !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	return runs, errors.Join(errs...)
}

// logsOf returns the numbers of the runs of which there are logs in a container's
// directory.
func logsOf(dir string) (sets.Set[int32], error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	runs := sets.New[int32]()
	for _, e := range entries {
		if m := logName.FindStringSubmatch(e.Name()); m != nil {
			if n, err := strconv.ParseInt(m[1], 10, 32); err == nil {
				runs.Insert(int32(n))
			}
		}
	}
	return runs, nil
}

// KeptLogs returns the runs whose logs are kept of all Jobs of that name, those among
// them whose pods have gone from the API at the time of the call.
func (n *Node) KeptLogs(ctx context.Context, namespace, job string) ([]keptlogs.Run, error) {
	if n.cfg.KeptLogs == nil {
		return nil, nil
	}
	if err := n.awaitRemoval(ctx, namespace, job); err != nil {
		return nil, err
	}
	return n.cfg.KeptLogs.Runs(ctx, namespace, job)
}

// OpenKeptLog opens the log of such a run, in the CRI's format. The error is
// fs.ErrNotExist if it isn't kept.
func (n *Node) OpenKeptLog(ctx context.Context, namespace string, pod types.UID, container string, restartCount int32) (io.ReadCloser, error) {
	if n.cfg.KeptLogs == nil {
		return nil, fmt.Errorf("this node keeps no logs: %w", fs.ErrNotExist)
	}
	return n.cfg.KeptLogs.Open(ctx, namespace, pod, container, restartCount)
}

// awaitRemoval waits until pods of the Job that the API has no more are removed here,
// too, and so their logs kept: also those that went while no agent was there. It
// doesn't wait for ever: a runtime may be away.
func (n *Node) awaitRemoval(ctx context.Context, namespace, job string) error {
	patience := n.cfg.Clock.NewTimer(removalPatience)
	defer patience.Stop()
	select {
	case <-n.ready: // what went meanwhile has a worker
	case <-patience.C():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
	var workers []*worker
	for _, w := range n.all() {
		if w.mayBeOf(namespace, job) {
			workers = append(workers, w)
		}
	}
	if len(workers) == 0 {
		return nil
	}
	pods, err := n.cfg.Client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("spec.nodeName", n.cfg.NodeName).String(),
	})
	if err != nil {
		return fmt.Errorf("list pods: %w", err)
	}
	there := sets.New[types.UID]()
	for i := range pods.Items {
		there.Insert(pods.Items[i].UID)
	}
	for _, w := range workers {
		if there.Has(w.uid) {
			continue
		}
		select {
		case <-w.removed:
		case <-patience.C():
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// mayBeOf tells whether the pod is one of the Job, or it isn't known whose.
func (w *worker) mayBeOf(namespace, job string) bool {
	pod := w.latest()
	return pod == nil || pod.Namespace == namespace && runtimepod.JobOf(pod).Name == job
}
