package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	upstream "k8s.io/kubernetes/pkg/kubelet/eviction"

	"errand.dev/errand/internal/node/eviction"
	"errand.dev/errand/internal/node/plan"
	"errand.dev/errand/internal/node/podstatus"
	"errand.dev/errand/internal/node/runtimepod"
)

const (
	// announceWithin is how long the API has to take the news of an eviction before
	// it begins: a full disk must not wait for a store on that disk.
	announceWithin = time.Second
	// resumedGrace is what an eviction that an earlier agent began leaves a pod.
	resumedGrace = time.Second
	// evictionPatience is how much longer than its grace period an eviction may take.
	evictionPatience = 30 * time.Second
)

// The eviction manager ends pods through the Node.
var _ eviction.Pods = (*Node)(nil)

// evictionOrder is an end that was asked for from outside the pod's worker.
type evictionOrder struct {
	outcome podstatus.Outcome
	grace   time.Duration
	resumed bool // an earlier agent has announced it
}

// Active implements eviction.Pods.
func (n *Node) Active() []*v1.Pod {
	list, err := n.lister.List(labels.Everything())
	if err != nil {
		return nil // a cache has no errors
	}
	var active []*v1.Pod
	for _, pod := range list {
		if !n.mine(pod) || isTerminal(pod.Status.Phase) {
			continue
		}
		if w := n.existing(pod.UID); w != nil && !w.status.terminal() {
			active = append(active, pod)
		}
	}
	return active
}

// Evict implements eviction.Pods.
func (n *Node) Evict(ctx context.Context, pod *v1.Pod, status *v1.PodStatus, grace time.Duration) error {
	w := n.existing(pod.UID)
	if w == nil {
		return nil
	}
	w.evictAs(evictionOrder{
		outcome: podstatus.Outcome{
			Reason: status.Reason, Message: status.Message, Disruption: podstatus.Disruption(status), Announced: true,
		},
		grace: grace,
	})
	timer := n.cfg.Clock.NewTimer(grace + evictionPatience)
	defer timer.Stop()
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C():
		return fmt.Errorf("pod %s/%s has not ended within %s of its grace period", pod.Namespace, pod.Name, evictionPatience)
	}
}

// Ended implements eviction.Pods.
func (n *Node) Ended(pod *v1.Pod) bool {
	w := n.existing(pod.UID)
	return w == nil || w.isDone()
}

// LocalStorage implements eviction.Pods.
func (n *Node) LocalStorage(pod *v1.Pod) eviction.LocalStorage {
	return eviction.LocalStorage{
		Volumes: n.volumes.LocalDirs(pod),
		Logs:    n.spec.PodLogDir(pod.Namespace, pod.Name, pod.UID),
	}
}

// DeleteAllUnusedContainers implements eviction.Pods.
func (n *Node) DeleteAllUnusedContainers(ctx context.Context) error {
	var errs []error
	if n.cfg.KeptLogs != nil {
		errs = append(errs, n.cfg.KeptLogs.DropAll(ctx)) // before any pod is evicted for want of disk
	}
	for _, w := range n.all() {
		if !w.isDone() {
			continue
		}
		left, err := n.cfg.Runtime.ListContainers(ctx, &runtimeapi.ContainerFilter{LabelSelector: runtimepod.UIDSelector(w.uid)})
		errs = append(errs, err)
		for _, c := range left {
			errs = append(errs, n.cfg.Runtime.RemoveContainer(ctx, c.GetId()))
		}
	}
	return errors.Join(errs...)
}

// shutdown is the outcome of a pod whose containers went with the node, on purpose
// (KEP-2000); nil if none did. What would be restarted is: only pods that have
// ended by it get one.
func (n *Node) shutdown(rt *runtimepod.Pod) *podstatus.Outcome {
	for _, c := range rt.Containers {
		if c.Lost && c.Reason == runtimepod.ReasonStatusUnknown && n.cfg.Drained != nil && n.cfg.Drained(c.ID) {
			const message = "Pod was terminated in response to imminent node shutdown."
			return &podstatus.Outcome{Reason: "Terminated", Message: message, Disruption: &v1.PodCondition{
				Type: v1.DisruptionTarget, Status: v1.ConditionTrue, Reason: v1.PodReasonTerminationByKubelet, Message: message,
			}}
		}
	}
	return nil
}

// evictAs has the worker end its pod so.
func (w *worker) evictAs(order evictionOrder) {
	w.mu.Lock()
	w.evict = &order
	w.mu.Unlock()
	w.kick()
}

func (w *worker) takeEviction() *evictionOrder {
	w.mu.Lock()
	defer w.mu.Unlock()
	order := w.evict
	w.evict = nil
	return order
}

// heedEviction has the pod end as somebody has asked for, or as an earlier agent
// has announced.
func (w *worker) heedEviction(pod *v1.Pod) {
	order := w.takeEviction()
	if order == nil {
		order = announcedBefore(pod)
	}
	if order == nil || w.ending != nil && w.ending.outcome != nil {
		return
	}
	if w.ending == nil {
		w.ending = &ending{}
	}
	w.ending.outcome, w.ending.most = &order.outcome, &order.grace
	w.ending.stopping = order.resumed
	w.ending.tellBy = w.n.cfg.Clock.Now().Add(announceWithin)
}

// announcedBefore is the eviction that the pod's status tells of, nil if it tells of
// none that isn't over.
func announcedBefore(pod *v1.Pod) *evictionOrder {
	if pod == nil || isTerminal(pod.Status.Phase) || pod.Status.Reason != upstream.Reason {
		return nil
	}
	return &evictionOrder{
		outcome: podstatus.Outcome{
			Reason: pod.Status.Reason, Message: pod.Status.Message, Disruption: podstatus.Disruption(&pod.Status), Announced: true,
		},
		grace:   resumedGrace,
		resumed: true,
	}
}

// announced tells whether the pod's containers may be stopped: an eviction is told
// to the API first, since a container's end by it looks like a failure. One that
// comes when the containers have done their work is none.
func (w *worker) announced(pod *v1.Pod, rt *runtimepod.Pod) bool {
	e := w.ending
	if e.outcome == nil || !e.outcome.Announced || e.stopping {
		return true
	}
	if plan.Compute(w.planInput(pod, rt)).Finished {
		e.outcome = nil
		return true
	}
	w.publish(pod, rt, false)
	if w.status.awaitWritten(w.kick) || !w.n.cfg.Clock.Now().Before(e.tellBy) {
		e.stopping = true
		return true
	}
	w.wakeAt = earliest(w.wakeAt, e.tellBy)
	return false
}

// setFinished notes that everything local is ended and freed.
func (w *worker) setFinished() {
	if !w.finished {
		w.finished = true
		close(w.done)
	}
}

func (w *worker) isDone() bool {
	select {
	case <-w.done:
		return true
	default:
		return false
	}
}
