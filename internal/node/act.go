package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"errand.dev/errand/internal/node/crispec"
	"errand.dev/errand/internal/node/plan"
	"errand.dev/errand/internal/node/podstatus"
	"errand.dev/errand/internal/node/runtimepod"
	"errand.dev/errand/internal/podtrace"
)

// act carries out the first part of the plan that can be. changed tells that the
// runtime has to be observed, and planned for, again: at once, or after a while if
// there is an error.
func (w *worker) act(ctx context.Context, pod *v1.Pod, rt *runtimepod.Pod, a plan.Actions) (changed bool, err error) {
	switch {
	case len(a.Kill) > 0:
		for _, k := range a.Kill {
			w.stopContainer(ctx, pod, k.Container, stopOrder{message: k.Message, grace: killGrace(pod, k), host: w.n.address(pod, rt)})
		}
		return false, nil // their ends wake us
	case len(a.Discard) > 0:
		return true, w.discard(ctx, pod, a.Discard)
	case a.NewSandbox:
		return w.newSandbox(ctx, pod, a)
	}
	for _, i := range a.Ephemeral {
		started, err := w.startContainer(ctx, pod, rt, (*v1.Container)(&pod.Spec.EphemeralContainers[i].EphemeralContainerCommon))
		changed = changed || started
		if err != nil {
			return changed, err
		}
	}
	for _, i := range a.Init {
		c := &pod.Spec.InitContainers[i]
		started, err := w.startContainer(ctx, pod, rt, c)
		changed = changed || started
		if err != nil || !started && !podutil.IsRestartableInitContainer(c) || started && hasPostStart(c) {
			return changed, err
		}
	}
	return w.startRegular(ctx, pod, rt, a.Start, changed)
}

// startRegular starts containers in order. One that is held back or fails lets
// the next ones start; one whose image is being pulled, or that has a postStart hook
// before it, doesn't.
func (w *worker) startRegular(ctx context.Context, pod *v1.Pod, rt *runtimepod.Pod, indices []int, changed bool) (bool, error) {
	var errs []error
	for _, i := range indices {
		if changed && w.hasNews() {
			break
		}
		c := &pod.Spec.Containers[i]
		started, err := w.startContainer(ctx, pod, rt, c)
		changed = changed || started
		if err != nil {
			errs = append(errs, err)
		}
		if !started && w.pulling(c.Name) || started && hasPostStart(c) {
			break
		}
	}
	return changed, errors.Join(errs...)
}

// killGrace is how long a container may take that is to be replaced: what the probe
// says that it failed (KEP-2238), else what the pod does.
func killGrace(pod *v1.Pod, k plan.Kill) time.Duration {
	if k.Now {
		return 0
	}
	c := findContainer(pod, k.Container.Name)
	if c == nil || pod.DeletionGracePeriodSeconds != nil {
		return grace(pod)
	}
	failed := map[string]*v1.Probe{"liveness": c.LivenessProbe, "startup": c.StartupProbe}[k.Probe]
	if failed != nil && failed.TerminationGracePeriodSeconds != nil {
		return time.Duration(*failed.TerminationGracePeriodSeconds) * time.Second
	}
	return grace(pod)
}

func hasPostStart(c *v1.Container) bool { return c.Lifecycle != nil && c.Lifecycle.PostStart != nil }

// discard removes containers that were created and never started: what they
// were made from may be out of date.
func (w *worker) discard(ctx context.Context, pod *v1.Pod, containers []*runtimepod.Container) error {
	for _, c := range containers {
		if err := w.n.cfg.Runtime.RemoveContainer(ctx, c.ID); err != nil {
			w.n.podEvent(pod, v1.EventTypeWarning, eventFailedSync, "error removing container %s, which was never started: %s", c.Name, errorMessage(err))
			return fmt.Errorf("remove container %s, which was never started: %w", c.ID, err)
		}
	}
	return nil
}

// newSandbox makes the pod's volumes and sandbox.
func (w *worker) newSandbox(ctx context.Context, pod *v1.Pod, a plan.Actions) (changed bool, err error) {
	if a.Replaces != "" && w.once("replaced "+a.Replaces) {
		w.n.podEvent(pod, v1.EventTypeNormal, eventSandboxChanged, "Pod sandbox changed, it will be killed and re-created.")
	}
	if a.Replaces != "" {
		if err := w.n.cfg.Runtime.StopPodSandbox(ctx, a.Replaces); err != nil {
			return false, fmt.Errorf("stop the sandbox that is to be replaced: %w", err)
		}
	}
	w.n.metrics.countUserNamespace(pod, w.n.metrics.users)
	w.prefetch(ctx, pod)
	if err := w.setUpVolumes(ctx, pod); err != nil {
		return false, err
	}
	if err := w.createSandbox(ctx, pod, a.Attempt); err != nil {
		w.n.metrics.sandboxErrors.Inc()
		w.n.metrics.countUserNamespace(pod, w.n.metrics.userErrors)
		w.n.podEvent(pod, v1.EventTypeWarning, eventFailedSandbox, "Failed to create pod sandbox: %v", err)
		return false, fmt.Errorf("create the pod's sandbox: %w", err)
	}
	w.n.metrics.sandboxes.Inc()
	return true, nil
}

func (w *worker) createSandbox(ctx context.Context, pod *v1.Pod, attempt uint32) error {
	users, err := w.userNamespace(pod)
	if err != nil {
		return err
	}
	config, err := w.n.spec.Sandbox(pod, attempt, users)
	if err != nil {
		return err
	}
	if w.once("dns") {
		problems, err := w.n.spec.DNS.Problems(pod)
		if err != nil {
			return err
		}
		for _, problem := range problems {
			w.n.podEvent(pod, v1.EventTypeWarning, eventDNS, "%s", problem)
		}
	}
	handler, err := w.n.objects.runtimeHandler(ctx, pod)
	if err != nil {
		return err
	}
	if err := makeDirs(config.GetLogDirectory(), w.n.podDir(w.uid)); err != nil {
		return err
	}
	// Stopping the agent must not leave half a sandbox.
	ctx, step := podtrace.Start(context.WithoutCancel(ctx), "RunPodSandbox", handler)
	_, err = w.n.cfg.Runtime.RunPodSandbox(ctx, config, handler)
	step.End(err)
	return err
}

// startContainer starts one container, unless it has to wait. What hinders it
// goes to the container's waiting state; an error is returned only if what
// failed concerns the pod as a whole.
func (w *worker) startContainer(ctx context.Context, pod *v1.Pod, rt *runtimepod.Pod, c *v1.Container) (started bool, err error) {
	now := w.n.cfg.Clock.Now()
	w.redefined(c)
	if w.awaits[c.Name] {
		return false, nil
	}
	if hold := w.holds[c.Name]; hold.After(now) {
		w.holdUntil(c.Name, hold)
		return false, nil
	}
	last := rt.Latest(c.Name)
	if w.crashLooping(pod, c, last) {
		return false, nil
	}
	images, ready, err := w.images(ctx, pod, c)
	switch {
	case err != nil:
		w.imageFailed(pod, c, err)
		return false, nil
	case !ready:
		return false, nil
	}
	w.forgetImages(c.Name)
	if last != nil {
		w.crashes[c.Name] = w.crash(c, last).Next(last, now)
	}
	if failure := w.launch(ctx, pod, rt, c, images); failure != nil {
		w.n.metrics.startErrors.WithLabelValues(containerType(pod, c.Name), failure.Reason).Inc()
		w.n.metrics.countUserNamespace(pod, w.n.metrics.userErrors)
		w.waiting[c.Name] = *failure
		if !w.awaits[c.Name] {
			w.holdAfterFailure(c.Name)
		}
		return failure.Reason == reasonRun, nil // it may have had its run
	}
	delete(w.waiting, c.Name)
	delete(w.holds, c.Name)
	delete(w.tries, c.Name)
	w.n.metrics.started.WithLabelValues(containerType(pod, c.Name)).Inc()
	return true, nil
}

// holdAfterFailure puts off the next attempt, ever longer.
func (w *worker) holdAfterFailure(name string) {
	w.holdUntil(name, w.n.cfg.Clock.Now().Add(min(retryInitial<<min(w.tries[name], 10), retryMax)))
	w.tries[name]++
}

// crash returns the container's back-off. Runs of another definition don't count.
func (w *worker) crash(c *v1.Container, last *runtimepod.Container) plan.CrashLoop {
	if b, ok := w.crashes[c.Name]; ok {
		return b
	}
	if last.Definition != "" && last.Definition != w.defined[c.Name] {
		return plan.CrashLoop{}
	}
	return plan.Recall(last)
}

// crashLooping holds a container back whose last run ended too recently.
func (w *worker) crashLooping(pod *v1.Pod, c *v1.Container, last *runtimepod.Container) bool {
	if last == nil {
		return false
	}
	b := w.crash(c, last)
	until := b.Until(last)
	if !until.After(w.n.cfg.Clock.Now()) {
		return false
	}
	who := fmt.Sprintf("%s_%s(%s)", pod.Name, pod.Namespace, pod.UID)
	w.n.containerEvent(pod, c, "", v1.EventTypeWarning, eventBackOff,
		fmt.Sprintf("Back-off restarting failed container %s in pod %s", c.Name, who))
	w.waiting[c.Name] = podstatus.Waiting{
		Reason:  "CrashLoopBackOff",
		Message: fmt.Sprintf("back-off %s restarting failed container=%s pod=%s", b.Delay, c.Name, who),
	}
	w.holdUntil(c.Name, until)
	return true
}

// The reasons for which a container that has its image can't be started.
const (
	reasonConfig = "CreateContainerConfigError"
	reasonCreate = "CreateContainerError"
	reasonRun    = "RunContainerError"
)

// launch creates and starts a run of the container.
func (w *worker) launch(ctx context.Context, pod *v1.Pod, rt *runtimepod.Pod, c *v1.Container, images runImages) *podstatus.Waiting {
	fail := func(id, reason string, err error) *podstatus.Waiting {
		message := errorMessage(err)
		w.n.containerEvent(pod, c, id, v1.EventTypeWarning, eventFailed, "Error: "+message)
		return &podstatus.Waiting{Reason: reason, Message: message}
	}
	ctx = w.traced().Context(ctx, c.Name)
	restarts := w.nextRestart(pod, rt, c)
	preparing, step := podtrace.Start(ctx, "PrepareContainer", "")
	config, err := w.containerConfig(preparing, pod, rt, c, restarts, images)
	step.End(err)
	if err != nil {
		w.awaits[c.Name] = errors.As(err, new(*crispec.MissingError))
		return fail("", reasonConfig, err)
	}
	sandbox := rt.Sandbox()
	sandboxConfig, err := w.n.spec.Sandbox(pod, sandbox.Attempt, config.GetLinux().GetSecurityContext().GetNamespaceOptions().GetUsernsOptions())
	if err != nil {
		return fail("", reasonConfig, err)
	}
	// From here on the agent's being stopped must not leave things half done.
	ctx = context.WithoutCancel(ctx)
	creating, step := podtrace.Start(ctx, "CreateContainer", "")
	id, err := w.n.cfg.Runtime.CreateContainer(creating, sandbox.ID, config, sandboxConfig)
	step.End(err)
	if err != nil {
		return fail(id, reasonCreate, err)
	}
	w.n.containerEvent(pod, c, id, v1.EventTypeNormal, eventCreated, "Container created")
	starting, step := podtrace.Start(ctx, "StartContainer", "")
	err = w.n.cfg.Runtime.StartContainer(starting, id)
	step.End(err)
	defer w.prune(ctx, pod, rt, c.Name) // what fails here is a run as well
	if err != nil {
		return fail(id, reasonRun, err)
	}
	w.n.containerEvent(pod, c, id, v1.EventTypeNormal, eventStarted, "Container started")
	return nil
}

// containerConfig gathers what the run needs.
func (w *worker) containerConfig(ctx context.Context, pod *v1.Pod, rt *runtimepod.Pod, c *v1.Container, restarts int32, images runImages) (*runtimeapi.ContainerConfig, error) {
	// Before anything is read: it subscribes to changes of what is.
	if err := w.setUpVolumes(ctx, pod); err != nil {
		return nil, err
	}
	podIPs := rt.IPs()
	if pod.Spec.HostNetwork {
		podIPs = w.n.cfg.HostIPs
	}
	env, err := w.n.spec.Env(ctx, runObjects{w.n.objects, w.vols}, pod, c, podIPs)
	if err != nil {
		return nil, err
	}
	mounts, err := w.mounts(ctx, pod, c, mountInput{env: env, podIPs: podIPs, restarts: restarts, images: images.volumes})
	if err != nil {
		return nil, err
	}
	target, err := target(pod, rt, c)
	if err != nil {
		return nil, err
	}
	users, err := w.userNamespace(pod)
	if err != nil {
		return nil, err
	}
	return w.n.spec.Container(crispec.Run{
		Pod:       pod,
		Container: c,
		Restarts:  restarts,
		Round:     plan.Round(pod, rt),
		ImageRef:  images.own.Ref,
		User:      crispec.UserOf(images.own.Info),
		Env:       env,
		Mounts:    mounts,
		Target:    target,
		Users:     users,
	})
}
