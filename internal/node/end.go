package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	v1 "k8s.io/api/core/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"

	"errand.dev/errand/internal/node/runtimepod"
	"errand.dev/errand/internal/podtrace"
	"errand.dev/errand/internal/podtrace/apipod"
)

// minGrace is what every container gets at least between SIGTERM and SIGKILL.
const minGrace = 2 * time.Second

// orphanGrace is what containers get of whose pod nothing is known.
const orphanGrace = time.Second

// end ends the pod: it has its containers stopped, reports the final status and
// frees what the pod had. It is called again whenever a container has ended.
func (w *worker) end(ctx context.Context) error {
	w.cancelPulls()
	w.cancelGreetings()
	pod, gone := w.snapshot()
	rt, err := w.observe(ctx, pod)
	if err != nil {
		return err
	}
	_ = w.askReadOnly(ctx, pod) // for the status alone: the end doesn't wait for it
	w.watchProbes(pod, rt)
	alive := rt.Alive()
	if !gone && !w.announced(pod, rt) {
		return nil
	}
	w.setKillTime(pod)
	if len(alive) > 0 {
		w.stopInOrder(ctx, pod, rt, alive)
		if !gone {
			w.publish(pod, rt, false)
		}
		return nil
	}
	switch {
	case gone:
	case w.last == nil && isTerminal(pod.Status.Phase):
		// It had ended, and that was told, before this agent came.
		w.last = pod.Status.DeepCopy()
		w.status.set(w.last)
	default:
		w.release() // before anybody can count on it
		// Told at once; giving back what the pod had follows, and then its object.
		w.publish(pod, rt, true)
	}
	if err := w.free(ctx, rt); err != nil {
		return err
	}
	w.setFinished()
	w.traced().Reached(podtrace.Freed)
	w.ended, w.found = map[string]*runtimepod.Container{}, nil
	w.status.finish()
	if gone {
		return w.remove(ctx)
	}
	return nil
}

// setKillTime fixes when the pod's containers are killed if they don't stop. A
// later, shorter grace period moves it forward, never back.
func (w *worker) setKillTime(pod *v1.Pod) {
	now, e := w.n.cfg.Clock.Now(), w.ending
	g := grace(pod)
	if e.most != nil {
		g = min(g, *e.most)
	}
	if !e.killBy.IsZero() && g >= e.grace {
		return
	}
	killBy := now.Add(g)
	if e.killBy.IsZero() && pod != nil && pod.DeletionTimestamp != nil {
		// The period began when the deletion was asked for, perhaps before this
		// agent was there. The API rounds down to seconds.
		if begun := pod.DeletionTimestamp.Add(time.Second); begun.Before(killBy) {
			killBy = begun
		}
	}
	e.grace = g
	if e.killBy.IsZero() || killBy.Before(e.killBy) {
		e.killBy = killBy
	}
}

// grace is the pod's grace period. What containers get at least is added where they
// are stopped: a preStop hook has no part in it.
func grace(pod *v1.Pod) time.Duration {
	seconds := int64(0)
	switch {
	case pod == nil:
		return orphanGrace
	case pod.DeletionGracePeriodSeconds != nil:
		seconds = *pod.DeletionGracePeriodSeconds
	case pod.Spec.TerminationGracePeriodSeconds != nil:
		seconds = *pod.Spec.TerminationGracePeriodSeconds
	}
	return time.Duration(seconds) * time.Second
}

// stopInOrder stops the regular containers (and what belongs to no sidecar)
// first, and when they are gone the sidecars, the last one first (KEP-753). All
// preStop hooks start at once, and once the grace period is over all stop at once.
func (w *worker) stopInOrder(ctx context.Context, pod *v1.Pod, rt *runtimepod.Pod, alive []*runtimepod.Container) {
	now := w.n.cfg.Clock.Now()
	order := stopOrder{grace: max(w.ending.killBy.Sub(now), 0)}
	if pod != nil {
		order.host = w.n.address(pod, rt)
	}
	for _, c := range alive {
		w.beginStop(ctx, pod, c, order)
	}
	turn := alive
	if order.grace > 0 {
		turn = firstToStop(pod, alive)
	}
	for _, c := range turn {
		w.stopContainer(ctx, pod, c, order)
	}
	if len(turn) < len(alive) {
		w.wakeAt = earliest(w.wakeAt, w.ending.killBy)
	}
}

// firstToStop returns those of the containers whose turn to stop it is.
func firstToStop(pod *v1.Pod, alive []*runtimepod.Container) []*runtimepod.Container {
	turn := alive[:0:0]
	var sidecar *runtimepod.Container
	last := -1
	for _, c := range alive {
		switch i := sidecarIndex(pod, c.Name); {
		case i < 0:
			turn = append(turn, c)
		case i > last:
			last, sidecar = i, c
		}
	}
	if len(turn) == 0 {
		turn = append(turn, sidecar)
	}
	return turn
}

// sidecarIndex returns the position of a sidecar among the init containers, -1
// for any other container.
func sidecarIndex(pod *v1.Pod, name string) int {
	if pod != nil {
		for i := range pod.Spec.InitContainers {
			if c := &pod.Spec.InitContainers[i]; c.Name == name && podutil.IsRestartableInitContainer(c) {
				return i
			}
		}
	}
	return -1
}

// free gives back what the pod had: sandboxes and with them addresses and the
// cgroup, volumes. Dead containers stay, for their logs and exit codes.
func (w *worker) free(ctx context.Context, rt *runtimepod.Pod) error {
	ctx, step := podtrace.Start(w.traced().Context(context.WithoutCancel(ctx), ""), "TearDownPod", "")
	err := w.freeAll(ctx, rt)
	step.End(err)
	return err
}

func (w *worker) freeAll(ctx context.Context, rt *runtimepod.Pod) error {
	var errs []error
	for i := range rt.Sandboxes {
		if s := &rt.Sandboxes[i]; s.Ready {
			if err := w.n.cfg.Runtime.StopPodSandbox(ctx, s.ID); err != nil {
				errs = append(errs, fmt.Errorf("stop sandbox %s: %w", s.ID, err))
			}
		}
	}
	if len(errs) == 0 {
		errs = append(errs, w.n.users.Release(w.uid), w.n.volumes.Teardown(ctx, w.uid))
		w.vols = nil
	}
	return errors.Join(errs...)
}

// remove removes everything that is left of a pod that the API no longer has,
// and the worker itself.
func (w *worker) remove(ctx context.Context) error {
	pod := w.latest()
	rt, err := w.n.observe(ctx, w.uid, nil, w.ended)
	if err != nil {
		return err
	}
	if err := w.keepLogs(ctx, pod, rt); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	var errs []error
	for _, c := range rt.Containers {
		errs = append(errs, w.n.cfg.Runtime.RemoveContainer(ctx, c.ID))
	}
	for i := range rt.Sandboxes {
		errs = append(errs, w.n.cfg.Runtime.RemovePodSandbox(ctx, rt.Sandboxes[i].ID))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove the pod's containers: %w", err)
	}
	namespace, name := rt.Namespace, rt.Name
	if pod != nil {
		namespace, name = pod.Namespace, pod.Name
		w.n.cfg.Traces.Pod(apipod.Identity(pod)).Close() // also of one that went before it was looked at
	}
	if name != "" {
		errs = append(errs, os.RemoveAll(w.n.spec.PodLogDir(namespace, name, w.uid)))
	} else {
		errs = append(errs, w.n.removeLogsOf(w.uid))
	}
	errs = append(errs, os.RemoveAll(w.n.podDir(w.uid)))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove the pod's files: %w", err)
	}
	w.n.puller.Forget(w.uid)
	w.n.forget(w.uid)
	select {
	case <-w.removed: // it was woken once more
	default:
		close(w.removed)
	}
	return nil
}
