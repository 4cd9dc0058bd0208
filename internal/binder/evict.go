package binder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
)

const reasonPreempted = "Preempted"

// makeRoom decides on pods to evict in favour of one that fits nowhere, and
// returns the write that does it; nil if there are none. Meanwhile the pod is held.
// b.mu must be held.
func (b *Binder) makeRoom(ctx context.Context, w *waiting, d *diagnosis) func(context.Context) {
	if d.ineligible = b.state.ineligible(w, d); d.ineligible != "" {
		// Victims that are about to go are nothing new to tell.
		d.quiet = len(w.victims) > 0
		return nil
	}
	budgets, err := b.budgets.List(labels.Everything())
	if err != nil {
		return nil // a cache has no errors
	}
	found := b.state.preempt(ctx, w.info, d, budgets)
	if found == nil {
		delete(b.state.nominated, w.info.uid)
		return nil
	}
	node := found.node.name
	d.found = found.String()
	b.state.nominate(w.info, node)
	w.solo, w.victims = true, map[types.UID]bool{}
	e := eviction{pod: w.pod, node: node, text: d.String()}
	for _, v := range found.victims {
		w.victims[v.info.uid] = true
		if v.info.pod.DeletionTimestamp == nil && !v.evicted {
			v.evicted = true
			e.victims = append(e.victims, v.info.pod)
		}
	}
	e.dropped = b.state.dropLowerNominations(w.info, node)
	b.queue.hold(w)
	return func(ctx context.Context) { b.evictFor(ctx, w, e) }
}

// eviction is what is to be done to make room for a pod.
type eviction struct {
	pod     *v1.Pod // as it was when that was decided
	node    string
	victims []*v1.Pod
	dropped []*v1.Pod // those for which room was kept there
	text    string    // what is said of it on the pod
}

// dropLowerNominations takes the room back that was kept on the node for pods of
// lower priority, and returns these.
func (s *state) dropLowerNominations(p *podInfo, node string) []*v1.Pod {
	var dropped []*v1.Pod
	for uid, other := range s.nominated {
		if other.node == node && other.info.priority < p.priority {
			delete(s.nominated, uid)
			dropped = append(dropped, other.info.pod)
		}
	}
	return dropped
}

// spare notes that pods weren't evicted after all, or may not have been.
func (s *state) spare(pods []*v1.Pod) {
	for _, pod := range pods {
		if p, ok := s.placed[pod.UID]; ok {
			p.evicted = false
		}
	}
}

// evictFor says on the pod that it will get room, evicts those who have it, and
// lets the pod try again.
func (b *Binder) evictFor(ctx context.Context, w *waiting, e eviction) {
	logger := klog.FromContext(ctx)
	logger.V(2).Info("Preempting pods", "pod", klog.KObj(e.pod), "victims", klog.KObjSlice(e.victims), "node", e.node)
	err := b.setUnscheduled(ctx, e.pod, e.text, &e.node)
	if err == nil {
		b.remindLater()
		b.cfg.Recorder.Event(e.pod, v1.EventTypeWarning, reasonFailedScheduling, truncate(e.text))
		err = b.evict(ctx, e)
	}
	for _, other := range e.dropped {
		if err := b.clearNomination(ctx, other); err != nil && !apierrors.IsNotFound(err) && ctx.Err() == nil {
			logger.Error(err, "Cannot take back the room that was kept for a pod", "pod", klog.KObj(other))
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil {
		b.state.spare(e.victims)
	}
	if b.queue.pods[w.info.uid] != w || w.class != nil || len(w.pod.Spec.SchedulingGates) > 0 {
		return
	}
	switch {
	case ctx.Err() != nil, apierrors.IsNotFound(err):
		return // the watch will tell
	case err == nil:
		w.told = e.text
	default:
		w.victims = nil
		delete(b.state.nominated, w.info.uid)
		if !apierrors.IsConflict(err) {
			logger.Error(err, "Preemption failed; will try again", "pod", klog.KObj(e.pod))
		} else if w.pod.ResourceVersion != e.pod.ResourceVersion {
			break // the newer pod is here already
		}
		b.retryLater(w)
		return
	}
	b.queue.add(w)
	b.signal()
}

// evict says on the victims that they are disrupted, and deletes them with their
// grace periods.
func (b *Binder) evict(ctx context.Context, e eviction) error {
	var errs []error
	for _, victim := range e.victims {
		err := b.evictOne(ctx, victim)
		if err == nil {
			b.cfg.Recorder.Eventf(victim, v1.EventTypeNormal, reasonPreempted, "Preempted by pod %s on node %s", e.pod.UID, e.node)
		}
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			err = nil // gone, or another pod has its name
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("evict pod %s/%s: %w", victim.Namespace, victim.Name, err))
		}
	}
	return errors.Join(errs...)
}

func (b *Binder) evictOne(ctx context.Context, victim *v1.Pod) error {
	condition := v1.PodCondition{
		Type:               v1.DisruptionTarget,
		Status:             v1.ConditionTrue,
		Reason:             v1.PodReasonPreemptionByScheduler,
		Message:            b.cfg.SchedulerName + ": preempting to accommodate a higher priority pod",
		ObservedGeneration: podutil.CalculatePodConditionObservedGeneration(&victim.Status, victim.Generation, v1.DisruptionTarget),
		LastTransitionTime: metav1.NewTime(b.cfg.Clock.Now()),
	}
	if err := b.patchStatus(ctx, victim, map[string]any{"uid": victim.UID}, map[string]any{"conditions": []v1.PodCondition{condition}}); err != nil {
		return err
	}
	return b.cfg.Client.CoreV1().Pods(victim.Namespace).Delete(ctx, victim.Name, metav1.DeleteOptions{
		Preconditions: metav1.NewUIDPreconditions(string(victim.UID)),
	})
}

func (b *Binder) clearNomination(ctx context.Context, pod *v1.Pod) error {
	return b.patchStatus(ctx, pod, map[string]any{"uid": pod.UID}, map[string]any{"nominatedNodeName": nil})
}

func (b *Binder) patchStatus(ctx context.Context, pod *v1.Pod, metadata, status map[string]any) error {
	patch, err := json.Marshal(map[string]any{"metadata": metadata, "status": status})
	if err != nil {
		return err
	}
	_, err = b.cfg.Client.CoreV1().Pods(pod.Namespace).
		Patch(ctx, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}
