package binder

import (
	"context"
	"errors"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	"k8s.io/utils/ptr"

	"errand.dev/errand/internal/podtrace"
)

const (
	// After a binding failed the pod waits, twice as long each time.
	firstRetry, lastRetry = time.Second, 10 * time.Second
	// remindAfter is when pods that still wait are told again: events are kept
	// for an hour.
	remindAfter = 30 * time.Minute
	// maxNote is the length in bytes that the API allows an event's message.
	maxNote = 1024

	reasonScheduled        = "Scheduled"
	reasonFailedScheduling = "FailedScheduling"
)

// bind carries a decision out.
func (b *Binder) bind(ctx context.Context, w *waiting, node string) {
	pod, asked := w.pod, w.trace.Now()
	err := b.cfg.Client.CoreV1().Pods(pod.Namespace).Bind(ctx, &v1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		Target:     v1.ObjectReference{Kind: "Node", Name: node},
	}, metav1.CreateOptions{})
	w.placing.Record(podtrace.Done{Name: "BindPod", Detail: node, Start: asked, End: w.trace.Now(), Err: err})
	if err == nil {
		w.placing.End(nil)
		b.cfg.Recorder.Eventf(pod, v1.EventTypeNormal, reasonScheduled, "Successfully assigned %s/%s to %s", pod.Namespace, pod.Name, node)
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if p, ok := b.state.placed[pod.UID]; !ok || !p.assumed {
		w.placing.End(err)
		return // gone; or bound, by someone else or by us and the answer got lost
	}
	b.state.forget(pod.UID)
	b.happened(podLeft)
	if apierrors.IsNotFound(err) {
		w.gone()
	}
	if ctx.Err() != nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		w.placing.End(err)
		return // the watch brings what there is to know
	}
	klog.FromContext(ctx).Error(err, "Binding failed; will try again", "pod", klog.KObj(pod), "node", node)
	b.cfg.Recorder.Event(pod, v1.EventTypeWarning, reasonFailedScheduling, truncate(fmt.Sprintf("binding rejected: %v", err)))
	b.retryLater(w)
}

// errGone is how the scheduling of a pod ends that is deleted before.
var errGone = errors.New("the pod was deleted")

// gone tells that the pod will have no node.
func (w *waiting) gone() {
	w.placing.End(errGone)
	w.trace.Close()
}

// retryLater queues a pod again when its back-off is over. b.mu must be held.
func (b *Binder) retryLater(w *waiting) {
	wait := min(firstRetry<<min(w.failures, 10), lastRetry)
	w.failures++
	b.queue.hold(w)
	b.cfg.Clock.AfterFunc(wait, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.queue.pods[w.info.uid] == w && w.class == nil && len(w.pod.Spec.SchedulingGates) == 0 {
			b.queue.add(w)
			b.signal()
		}
	})
}

// report says on a pod, and perhaps in an event, why it has no node.
func (b *Binder) report(ctx context.Context, u *untold) {
	pod, text := u.pod, u.why.String()
	logger := klog.FromContext(ctx)
	logger.V(2).Info("Unable to schedule pod; waiting", "pod", klog.KObj(pod), "reason", text)
	var nominated *string
	if u.lost {
		nominated = ptr.To("")
	}
	err := b.setUnscheduled(ctx, pod, text, nominated)
	switch {
	case err == nil:
		b.remindLater()
		if u.event {
			b.cfg.Recorder.Event(pod, v1.EventTypeWarning, reasonFailedScheduling, truncate(text))
		}
		return
	case ctx.Err() != nil, apierrors.IsNotFound(err):
		return
	case !apierrors.IsConflict(err):
		logger.Error(err, "Could not say on the pod why it waits", "pod", klog.KObj(pod))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	w := b.queue.pods[pod.UID]
	if w == nil {
		return
	}
	b.queue.failedToTell(w)
	if w.pod.ResourceVersion != pod.ResourceVersion && w.class != nil {
		b.queue.tell(w) // the newer pod is here already; no event will bring it
		b.signal()
	}
}

// remindLater has all pods that wait then told again, once, in a while.
func (b *Binder) remindLater() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.reminding {
		return
	}
	b.reminding = true
	b.cfg.Clock.AfterFunc(remindAfter, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.reminding = false
		b.queue.tellAll()
		b.signal()
	})
}

// setUnscheduled writes the PodScheduled condition and, unless it is nil, the
// node where room is made. The patch holds for the pod exactly as it was seen: it
// must not overwrite what a binding wrote.
func (b *Binder) setUnscheduled(ctx context.Context, pod *v1.Pod, message string, nominated *string) error {
	condition := v1.PodCondition{
		Type:               v1.PodScheduled,
		Status:             v1.ConditionFalse,
		Reason:             v1.PodReasonUnschedulable,
		Message:            message,
		ObservedGeneration: podutil.CalculatePodConditionObservedGeneration(&pod.Status, pod.Generation, v1.PodScheduled),
		LastTransitionTime: metav1.NewTime(b.cfg.Clock.Now()),
	}
	if _, old := podutil.GetPodCondition(&pod.Status, v1.PodScheduled); old != nil && old.Status == condition.Status {
		condition.LastTransitionTime = old.LastTransitionTime
	}
	status := map[string]any{"conditions": []v1.PodCondition{condition}}
	if nominated != nil {
		status["nominatedNodeName"] = *nominated
	}
	return b.patchStatus(ctx, pod, map[string]any{"uid": pod.UID, "resourceVersion": pod.ResourceVersion}, status)
}

func truncate(note string) string {
	const dots = " ..."
	if len(note) <= maxNote {
		return note
	}
	return note[:maxNote-len(dots)] + dots
}
