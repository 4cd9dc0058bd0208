package node

import (
	"context"
	"errors"
	"fmt"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"

	"errand.dev/errand/internal/node/crispec"
	"errand.dev/errand/internal/node/plan"
	"errand.dev/errand/internal/node/podstatus"
	"errand.dev/errand/internal/node/resize"
	"errand.dev/errand/internal/node/runtimepod"
	"errand.dev/errand/internal/node/volumes"
	"errand.dev/errand/internal/podtrace"
)

// sync brings the pod one step on: as far as it gets without waiting.
func (w *worker) sync(ctx context.Context) error {
	pod, gone := w.snapshot()
	switch {
	case w.finished && gone:
		return w.remove(ctx)
	case w.finished:
		return nil
	case pod == nil && !gone:
		return nil
	}
	if w.ending == nil {
		w.ending = w.mustEnd(pod, gone)
	}
	w.heedEviction(pod)
	w.askForRecursiveReadOnly(ctx, pod)
	if w.ending != nil {
		return w.end(ctx)
	}
	return w.run(ctx, pod)
}

// mustEnd tells whether the pod is to end whatever its containers do.
func (w *worker) mustEnd(pod *v1.Pod, gone bool) *ending {
	switch {
	case gone, pod.DeletionTimestamp != nil, isTerminal(pod.Status.Phase):
		return &ending{}
	}
	if at := w.deadline(); !at.IsZero() && !w.n.cfg.Clock.Now().Before(at) {
		const reason, message = "DeadlineExceeded", "Pod was active on the node longer than the specified deadline"
		w.n.podEvent(pod, v1.EventTypeNormal, reason, message)
		return &ending{outcome: &podstatus.Outcome{Reason: reason, Message: message}}
	}
	return nil
}

// run does for a pod what its plan says, until there is nothing to do or
// something to wait for, and reports.
func (w *worker) run(ctx context.Context, pod *v1.Pod) error {
	ctx = w.traced().Context(ctx, "")
	w.stopAwaiting()
	release := func() {}
	defer func() { release() }()
	started := false
	for {
		rt, err := w.observe(ctx, pod)
		if err != nil {
			return err
		}
		if w.refuse(ctx, pod, rt) {
			return nil
		}
		pod = w.allot(pod, rt)
		resizeErr := w.enforce(ctx, pod, rt)
		w.greet(ctx, pod, rt)
		w.watchProbes(pod, rt)
		w.announceRound(pod, rt)
		actions := plan.Compute(w.planInput(pod, rt))
		if actions.Finished {
			w.ending = &ending{outcome: w.n.shutdown(rt)}
			return w.end(ctx)
		}
		if !started && starts(actions) {
			var waiting *podtrace.Span
			release, err = w.n.start(ctx, func() {
				waiting = w.traced().Start("WaitForTurn", "")
				w.publish(pod, rt, false)
			})
			waiting.End(err)
			if err != nil {
				release = func() {}
				return nil
			}
			started = true
		}
		changed, actErr := false, error(nil)
		if !w.hasNews() {
			changed, actErr = w.act(ctx, pod, rt, actions)
		}
		if changed && actErr == nil {
			continue
		}
		if actErr != nil {
			// Part of it may have been done before it failed.
			if again, err := w.observe(ctx, pod); err == nil {
				rt = again
			}
		}
		w.publish(pod, rt, false)
		return errors.Join(actErr, resizeErr, w.keepVolumes(ctx, pod, rt))
	}
}

func (w *worker) planInput(pod *v1.Pod, rt *runtimepod.Pod) plan.Input {
	in := plan.Input{Pod: pod, Runtime: rt, Unhealthy: w.probes.Unhealthy(), Started: w.probes.Started}
	in.Resized = w.resizing.restart
	in.PostStarting, in.PostStartFailed = w.greeted(rt)
	return in
}

// announceRound tells the API, before anything is done about it, that all containers
// of the pod are to be restarted.
func (w *worker) announceRound(pod *v1.Pod, rt *runtimepod.Pod) {
	if round := plan.Round(pod, rt); round > max(rt.Round(), w.round) {
		w.round = round
		w.publish(pod, rt, false)
	}
}

func starts(a plan.Actions) bool {
	return a.NewSandbox || len(a.Ephemeral)+len(a.Init)+len(a.Start) > 0
}

// observe returns what the runtime has of the pod, and what it has lost.
func (w *worker) observe(ctx context.Context, pod *v1.Pod) (*runtimepod.Pod, error) {
	rt, err := w.n.observe(ctx, w.uid, pod, w.ended)
	if err != nil {
		return nil, err
	}
	w.forgetStops(rt)
	if pod != nil {
		previous := w.previous(pod)
		rt.AddLost(previous.InitContainerStatuses...)
		rt.AddLost(previous.ContainerStatuses...)
		rt.AddLost(previous.EphemeralContainerStatuses...)
	}
	return rt, nil
}

func (w *worker) previous(pod *v1.Pod) *v1.PodStatus {
	if w.last != nil {
		return w.last
	}
	return &pod.Status
}

// refuse ends a pod that can't be run rightly here, unless it already runs.
func (w *worker) refuse(ctx context.Context, pod *v1.Pod, rt *runtimepod.Pod) bool {
	if !w.once("admitted") || len(rt.Containers) > 0 {
		return false
	}
	reason, message := w.n.refusal(ctx, pod)
	w.mu.Lock()
	unfit := w.unfit
	w.mu.Unlock()
	switch {
	case message != "":
	case unfit != nil:
		reason, message = unfit.Reason, unfit.Message
	default:
		return false
	}
	klog.FromContext(ctx).V(2).Info("Pod refused", "reason", reason, "why", message)
	w.n.podEvent(pod, v1.EventTypeWarning, reason, "%s", message)
	w.ending = &ending{}
	w.setFinished()
	w.last = podstatus.Rejected(pod, reason, message)
	w.status.set(w.last)
	w.status.finish()
	w.traced().Reached(podtrace.Freed)
	return true
}

// refusal is why a pod can't be run rightly here; no message means that it can.
func (n *Node) refusal(ctx context.Context, pod *v1.Pod) (reason, message string) {
	if n.cfg.Admit != nil {
		if reason, message = n.cfg.Admit(ctx, pod); message != "" {
			return reason, message
		}
	}
	if reason, message = crispec.Inadmissible(ctx, pod); message != "" {
		return reason, message
	}
	message = crispec.Unsupported(pod)
	if message == "" {
		message = n.withoutUserNamespace(ctx, pod)
	}
	if err := volumes.Unsupported(pod); err != nil {
		if message != "" {
			message += "; "
		}
		message += err.Error()
	}
	return crispec.ReasonUnsupported, message
}

// publish generates the pod's status and has it written.
func (w *worker) publish(pod *v1.Pod, rt *runtimepod.Pod, ended bool) {
	if given := w.resizing.given; given != nil {
		pod = resize.As(pod, given)
	}
	in := podstatus.Input{
		Pod:               pod,
		Previous:          w.previous(pod),
		Runtime:           rt.Without(w.ungreeted),
		RuntimeName:       w.n.runtime(),
		Waiting:           w.waiting,
		Started:           w.probes.Started,
		Ready:             w.probes.Ready,
		Ended:             ended,
		Ending:            w.ending != nil,
		Resize:            w.resizeStatus(),
		HostIPs:           w.n.cfg.HostIPs,
		RecursiveReadOnly: w.recursive,
		Now:               metav1.NewTime(w.n.cfg.Clock.Now()),
	}
	if w.ending != nil {
		in.Outcome = w.ending.outcome
	}
	w.last = podstatus.Generate(in)
	if in.Previous.Phase == v1.PodPending && w.last.Phase != v1.PodPending && w.last.Phase != v1.PodFailed {
		w.n.metrics.podStarted(pod, w.seen, w.n.cfg.Clock.Now(), w.pullTime())
	}
	w.status.set(w.last)
}

// keepVolumes sets up the volumes of a pod that ran before this agent did, and
// brings those of a running pod up to date.
func (w *worker) keepVolumes(ctx context.Context, pod *v1.Pod, rt *runtimepod.Pod) error {
	stale := w.takeStale()
	switch {
	case rt.Sandbox() == nil:
		return nil // set up when it is made
	case w.vols == nil:
		return w.setUpVolumes(ctx, pod)
	case stale || w.metadataChanged(pod):
		return w.mountErrors(pod, w.n.volumes.Refresh(ctx, pod, w.n.volumeInfo()))
	}
	return nil
}

// setUpVolumes makes the pod's volumes ready, once.
func (w *worker) setUpVolumes(ctx context.Context, pod *v1.Pod) error {
	if w.vols != nil {
		return nil
	}
	ctx, step := podtrace.Start(ctx, "SetUpVolumes", "")
	vols, err := w.n.volumes.Setup(ctx, pod, w.n.volumeInfo())
	step.End(err)
	if err != nil {
		return w.mountErrors(pod, err)
	}
	w.vols = vols
	w.metadataChanged(pod)
	return nil
}

// mountErrors records an event for each volume that failed and returns err.
func (w *worker) mountErrors(pod *v1.Pod, err error) error {
	if err == nil {
		return nil
	}
	errs := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		errs = joined.Unwrap()
	}
	for _, e := range errs {
		w.n.podEvent(pod, v1.EventTypeWarning, eventFailedMount, "%v", e)
	}
	return fmt.Errorf("volumes: %w", err)
}

// metadataChanged tells whether labels or annotations, which downward API
// volumes show, differ from those seen last.
func (w *worker) metadataChanged(pod *v1.Pod) bool {
	now := fmt.Sprint(pod.Labels, pod.Annotations)
	changed := w.metadata != now
	w.metadata = now
	return changed
}
