package node

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"

	"errand.dev/errand/internal/node/podstatus"
	"errand.dev/errand/internal/node/resize"
	"errand.dev/errand/internal/node/runtimepod"
)

// resizing is a pod's in-place resize (KEP-1287), as far as it has got. The zero
// value is that of a pod which hasn't been looked at.
type resizing struct {
	// given is the pod whose resources this one has been given.
	given *v1.Pod
	// pending is why it isn't given what it asks for; nil if it is.
	pending *resize.Refusal
	// active tells that what was given isn't in force everywhere yet.
	active bool
	// restart are the runs, by ID, that must be replaced for it.
	restart map[string]bool
	// failed is why it couldn't be put in force, "" if that hasn't been seen.
	failed string
}

// allot returns the pod with the resources that it has been given: those that it
// asks for if there is room for them.
func (w *worker) allot(pod *v1.Pod, rt *runtimepod.Pod) *v1.Pod {
	r := &w.resizing
	if r.given == nil {
		r.given = resize.Given(pod)
		_, condition := podutil.GetPodCondition(&pod.Status, v1.PodResizeInProgress)
		r.active = condition != nil
		if _, c := podutil.GetPodCondition(&pod.Status, v1.PodResizePending); c != nil {
			r.pending = &resize.Refusal{Reason: c.Reason, Message: c.Message}
		}
	}
	if resize.Same(r.given, pod) {
		if r.pending != nil {
			r.pending = nil
			w.n.ledger.Withdraw(w.uid)
			w.n.retryResizes(w.uid) // one may have stood behind it
		}
		return pod
	}
	if w.n.ledger.TooEarly(w.uid) {
		return resize.As(pod, r.given)
	}
	if refusal := w.n.ledger.Resize(pod); refusal != nil {
		if r.pending == nil || *r.pending != *refusal {
			w.n.podEvent(pod, v1.EventTypeWarning, "Resize"+refusal.Reason, "Pod resize %s: %s", refusal.Reason, refusal.Message)
			w.n.retryResizes(w.uid) // one may have stood behind it
		}
		r.pending = refusal
		return resize.As(pod, r.given)
	}
	w.n.podEvent(pod, v1.EventTypeNormal, eventResizeStarted, "Pod resize started: generation %d", pod.Generation)
	r.noteRestarts(pod, rt)
	r.given, r.pending, r.active, r.failed = pod, nil, true, ""
	w.n.retryResizes(w.uid) // it may have given something back
	return pod
}

// noteRestarts notes which runs can't go on with the pod's new resources.
func (r *resizing) noteRestarts(pod *v1.Pod, rt *runtimepod.Pod) {
	for _, run := range rt.Alive() {
		was, is := findContainer(r.given, run.Name), findContainer(pod, run.Name)
		if was == nil || is == nil {
			continue
		}
		differs := func(name v1.ResourceName) bool {
			return !equality.Semantic.DeepEqual(was.Resources.Requests[name], is.Resources.Requests[name]) ||
				!equality.Semantic.DeepEqual(was.Resources.Limits[name], is.Resources.Limits[name])
		}
		if resize.NeedsRestart(is, differs(v1.ResourceCPU), differs(v1.ResourceMemory)) {
			if r.restart == nil {
				r.restart = map[string]bool{}
			}
			r.restart[run.ID] = true
		}
	}
}

// enforce puts what the pod was given in force, but for runs that must be replaced,
// which the plan sees to.
func (w *worker) enforce(ctx context.Context, pod *v1.Pod, rt *runtimepod.Pod) error {
	r := &w.resizing
	if !r.active {
		return nil
	}
	alive := rt.Alive()
	maps.DeleteFunc(r.restart, func(id string, _ bool) bool {
		return !slices.ContainsFunc(alive, func(c *runtimepod.Container) bool { return c.ID == id })
	})
	err := w.updateLimits(ctx, pod, rt)
	switch {
	case err != nil:
		if message := errorMessage(err); message != r.failed {
			r.failed = message
			w.n.podEvent(pod, v1.EventTypeWarning, eventResizeError, "Pod resize error: %s", message)
		}
		return fmt.Errorf("resize the pod: %w", err)
	case len(r.restart) == 0:
		w.n.podEvent(pod, v1.EventTypeNormal, eventResizeCompleted, "Pod resize completed: generation %d", pod.Generation)
		r.active, r.failed = false, ""
	}
	return nil
}

// change is a run whose limits are to be others.
type change struct {
	run    *runtimepod.Container
	limits *runtimeapi.LinuxContainerResources
}

// updateLimits changes the limits of the pod's cgroup and those in it. The kernel
// lets no cgroup have more CPU than the one around it: the pod's is unlimited
// meanwhile.
func (w *worker) updateLimits(ctx context.Context, pod *v1.Pod, rt *runtimepod.Pod) error {
	sandbox := rt.Sandbox()
	if sandbox == nil || !sandbox.Ready {
		return nil // the next one is made with them
	}
	config, err := w.n.spec.Sandbox(pod, sandbox.Attempt, nil)
	if err != nil {
		return err
	}
	linux := config.GetLinux()
	changes := w.changes(pod, rt)
	if err := w.checkMemory(ctx, sandbox.ID, linux.GetResources(), changes); err != nil {
		return err
	}
	around := func(limits *runtimeapi.LinuxContainerResources) error {
		return w.updateAround(ctx, &runtimeapi.UpdatePodSandboxResourcesRequest{PodSandboxId: sandbox.ID, Overhead: linux.GetOverhead(), Resources: limits})
	}
	if err := around(&runtimeapi.LinuxContainerResources{CpuPeriod: linux.GetResources().GetCpuPeriod(), CpuQuota: -1}); err != nil {
		return err
	}
	for _, c := range changes {
		if err := w.n.cfg.Runtime.UpdateContainerResources(ctx, c.run.ID, &runtimeapi.ContainerResources{Linux: c.limits}); err != nil {
			return fmt.Errorf("container %s: %w", c.run.Name, err)
		}
	}
	if len(w.resizing.restart) > 0 {
		return nil
	}
	return around(linux.GetResources())
}

// changes are the runs that go on, with other limits than they have.
func (w *worker) changes(pod *v1.Pod, rt *runtimepod.Pod) []change {
	var all []change
	for _, run := range rt.Alive() {
		c := findContainer(pod, run.Name)
		if c == nil || ephemeral(pod, run.Name) != nil || w.resizing.restart[run.ID] {
			continue
		}
		if limits := w.n.spec.Resources(pod, c); run.Limits != runtimepod.LimitsOf(limits) {
			all = append(all, change{run, limits})
		}
	}
	return all
}

// checkMemory sees to it that nothing is taken away that is in use: the kernel
// would kill for it.
func (w *worker) checkMemory(ctx context.Context, sandbox string, pod *runtimeapi.LinuxContainerResources, changes []change) error {
	for _, c := range changes {
		limit := c.limits.GetMemoryLimitInBytes()
		if limit <= 0 || c.run.Limits.Memory > 0 && limit >= c.run.Limits.Memory {
			continue
		}
		stats, err := w.n.cfg.Runtime.ContainerStats(ctx, c.run.ID)
		if err != nil {
			return fmt.Errorf("container %s: %w", c.run.Name, err)
		}
		if usage := int64(stats.GetMemory().GetUsageBytes().GetValue()); usage > limit {
			return fmt.Errorf("container %s: attempting to set memory limit (%d) below current usage (%d)", c.run.Name, limit, usage)
		}
	}
	limit := pod.GetMemoryLimitInBytes()
	if limit <= 0 {
		return nil
	}
	stats, err := w.n.cfg.Runtime.PodSandboxStats(ctx, sandbox)
	if err != nil {
		return err
	}
	if usage := int64(stats.GetLinux().GetMemory().GetUsageBytes().GetValue()); usage > limit {
		return fmt.Errorf("attempting to set pod memory limit (%d) below current usage (%d)", limit, usage)
	}
	return nil
}

// updateAround changes the limits of the pod's cgroup, unless that isn't the runtime's.
func (w *worker) updateAround(ctx context.Context, around *runtimeapi.UpdatePodSandboxResourcesRequest) error {
	_, err := w.n.cfg.Runtime.UpdatePodSandboxResources(ctx, around)
	if status.Code(err) == codes.Unimplemented {
		return nil
	}
	return err
}

// resizeStatus is what the pod's status tells of its resize.
func (w *worker) resizeStatus() podstatus.Resize {
	r := &w.resizing
	shown := podstatus.Resize{Active: r.active, Error: r.failed}
	if r.pending != nil {
		shown.Pending = &podstatus.Waiting{Reason: r.pending.Reason, Message: r.pending.Message}
	}
	return shown
}

// release forgets what the pod was given, which others may be waiting for.
func (w *worker) release() {
	w.n.ledger.Drop(w.uid)
	w.n.retryResizes(w.uid)
}

// retryResizes has the other pods looked at whose resizes wait for room.
func (n *Node) retryResizes(except types.UID) {
	for _, uid := range n.ledger.Deferred() {
		if w := n.existing(uid); w != nil && uid != except {
			w.kick()
		}
	}
}
