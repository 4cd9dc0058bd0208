package node

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"

	"errand.dev/errand/internal/node/podstatus"
	"errand.dev/errand/internal/podtrace"
	"errand.dev/errand/internal/podtrace/apipod"
)

// Delays between attempts to write while the API doesn't take it.
const (
	writeRetryInitial = 100 * time.Millisecond
	writeRetryMax     = 5 * time.Second
)

// statusWriter brings the newest status of one pod to the API, and deletes the
// pod's object when that is due.
//
// At most one write is under way. What is set meanwhile replaces what waited, so
// that a burst of changes becomes one write and no older status ever follows a
// newer one. A write that fails is repeated until it succeeds, is replaced or the
// pod is gone. The object is deleted only once the API has the final status.
type statusWriter struct {
	n   *Node
	uid types.UID

	mu        sync.Mutex
	onWritten func()  // called, once, when the API has taken a status; nil if nobody waits
	base      *v1.Pod // the newest state of the API that is known
	want      *v1.PodStatus
	written   *v1.PodStatus // what was last written successfully
	at        string        // and the resource version that it gave
	since     time.Time     // when want began to differ from the API; zero if it doesn't
	wanted    time.Time     // when want was set
	finished  bool          // nothing local is left but logs
	deleted   bool
	stopped   bool
	active    bool
	failures  int
}

func newStatusWriter(n *Node, uid types.UID) *statusWriter {
	return &statusWriter{n: n, uid: uid}
}

// observed takes the pod as the API has it.
func (s *statusWriter) observed(pod *v1.Pod) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.base == nil || newer(pod, s.base) {
		s.base = pod
	}
	s.wake()
}

// set sets the status that the API is to have. It must not be changed afterwards.
func (s *statusWriter) set(status *v1.PodStatus) {
	now := s.n.cfg.Clock.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.want == nil || !equality.Semantic.DeepEqual(s.want, status) {
		s.want, s.wanted = status, now
	}
	if s.since.IsZero() {
		s.since = now
	}
	s.wake()
}

// apply returns the pod with the status that the API is to have.
func (s *statusWriter) apply(pod *v1.Pod) *v1.Pod {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.want == nil {
		return pod
	}
	latest := *pod
	latest.Status = *merge(pod, s.want)
	return &latest
}

// awaitWritten tells whether the API has the status that was set last. If not,
// then is called when it has taken one.
func (s *statusWriter) awaitWritten(then func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onWritten = then
	if s.stopped || s.base == nil || s.want == s.written || sameStatus(&s.base.Status, merge(s.base, s.want)) {
		s.onWritten = nil
		return true
	}
	return false
}

// terminal tells whether the pod has ended, as the API has it or is to have it.
func (s *statusWriter) terminal() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.base != nil && isTerminal(s.base.Status.Phase) || s.want != nil && isTerminal(s.want.Phase)
}

// finish allows the pod's object to be deleted, if that was asked for, once its
// final status is written.
func (s *statusWriter) finish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finished = true
	s.wake()
}

// stop ends all writing: the pod is gone.
func (s *statusWriter) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
}

// wake sees to it that what is to be done is done. s.mu must be held.
func (s *statusWriter) wake() {
	if !s.active && s.next() != nil {
		s.active = s.n.spawn(s.work)
	}
}

func (s *statusWriter) work(ctx context.Context) {
	logger := klog.FromContext(ctx).WithValues("podUID", s.uid)
	for {
		s.mu.Lock()
		step := s.next()
		if step == nil || ctx.Err() != nil {
			s.active = false
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		if err := step(ctx); err != nil && ctx.Err() == nil {
			if apierrors.IsConflict(err) {
				logger.V(2).Info("A pod's status met a conflict; trying again", "err", err)
			} else {
				logger.Error(err, "Cannot bring a pod's status to the API; trying again")
			}
			s.retryLater()
			return
		}
		if then := s.takeOnWritten(); then != nil {
			then()
		}
	}
}

func (s *statusWriter) takeOnWritten() func() {
	s.mu.Lock()
	defer s.mu.Unlock()
	then := s.onWritten
	s.onWritten = nil
	return then
}

// retryLater leaves the writer inactive, but unavailable, for a while.
func (s *statusWriter) retryLater() {
	s.mu.Lock()
	delay := min(writeRetryInitial<<min(s.failures, 10), writeRetryMax)
	s.failures++
	s.mu.Unlock()
	s.n.cfg.Clock.AfterFunc(delay, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.active = false
		s.wake()
	})
}

// next returns the next call of the API to make, nil if none is due. s.mu must
// be held.
func (s *statusWriter) next() func(context.Context) error {
	if s.stopped || s.deleted || s.base == nil || s.want == nil {
		return nil
	}
	merged := merge(s.base, s.want)
	base := s.base
	// What the API made of the very same status isn't written a second time.
	again := s.want == s.written && base.ResourceVersion == s.at
	if !again && !sameStatus(&base.Status, merged) {
		w := statusWrite{base: base, merged: merged, want: s.want, wanted: s.wanted}
		return func(ctx context.Context) error { return s.patch(ctx, &w) }
	}
	s.since = time.Time{}
	if s.finished && base.DeletionTimestamp != nil && isTerminal(base.Status.Phase) {
		return func(ctx context.Context) error { return s.remove(ctx, base) }
	}
	return nil
}

// statusWrite is one write: the merged status over base, of which want, since
// wanted, is the node's part.
type statusWrite struct {
	base         *v1.Pod
	merged, want *v1.PodStatus
	wanted       time.Time
}

func (s *statusWriter) patch(ctx context.Context, w *statusWrite) error {
	patch, err := patchFor(w.base, w.merged)
	if err != nil {
		return err
	}
	pod, err := s.n.cfg.Client.CoreV1().Pods(w.base.Namespace).
		Patch(ctx, w.base.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	return s.answered(pod, w, err)
}

func (s *statusWriter) remove(ctx context.Context, base *v1.Pod) error {
	err := s.n.cfg.Client.CoreV1().Pods(base.Namespace).Delete(ctx, base.Name, metav1.DeleteOptions{
		GracePeriodSeconds: ptr.To[int64](0),
		Preconditions:      metav1.NewUIDPreconditions(string(s.uid)),
	})
	if err == nil || apierrors.IsNotFound(err) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.deleted = true
		return nil
	}
	return fmt.Errorf("delete the pod: %w", err)
}

// answered takes the API's answer to a patch. That there is no such pod ends all
// writing. A conflict may mean that another pod has its name by now, which the
// informer will tell, or that others were faster too often, which passes.
func (s *statusWriter) answered(pod *v1.Pod, w *statusWrite, err error) error {
	now := s.n.cfg.Clock.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case apierrors.IsNotFound(err):
		s.stopped = true
		return nil
	case err != nil:
		return fmt.Errorf("patch the pod's status: %w", err)
	}
	s.failures = 0
	s.written, s.at = w.want, pod.ResourceVersion
	s.traceWrite(pod, w.wanted, now)
	if !s.since.IsZero() {
		s.n.metrics.statusWrite.Observe(now.Sub(s.since).Seconds())
	}
	if newer(pod, s.base) {
		s.base = pod
	}
	return nil
}

// traceWrite records that the API has had, since now, a status that was known at
// began.
func (s *statusWriter) traceWrite(pod *v1.Pod, began, now time.Time) {
	if s.n.cfg.Traces == nil {
		return
	}
	trace := s.n.cfg.Traces.Pod(apipod.Identity(pod))
	trace.Record(podtrace.Done{Name: "SyncPodStatus", Detail: string(pod.Status.Phase), Start: began, End: now})
	if isTerminal(pod.Status.Phase) {
		trace.Reached(podtrace.StatusWritten)
	}
}

// patchFor returns the change from base's status, valid only for the pod with
// its UID.
func patchFor(base *v1.Pod, status *v1.PodStatus) ([]byte, error) {
	old, err := json.Marshal(v1.Pod{Status: base.Status})
	if err != nil {
		return nil, err
	}
	changed := v1.Pod{Status: *status}
	changed.UID = base.UID // only here, so that it appears in the patch as a precondition
	want, err := json.Marshal(changed)
	if err != nil {
		return nil, err
	}
	return strategicpatch.CreateTwoWayMergePatch(old, want, v1.Pod{})
}

// merge returns the API's status with everything that the node owns replaced.
func merge(base *v1.Pod, want *v1.PodStatus) *v1.PodStatus {
	s := base.Status.DeepCopy()
	if !isTerminal(s.Phase) {
		s.Phase = want.Phase
		s.Reason, s.Message = want.Reason, want.Message
	}
	var conditions []v1.PodCondition
	disruption := podstatus.Disruption(want)
	for _, c := range s.Conditions {
		if !podstatus.Owned(c.Type) && (c.Type != v1.DisruptionTarget || disruption == nil) {
			conditions = append(conditions, c)
		}
	}
	if disruption != nil {
		conditions = append(conditions, *disruption)
	}
	for _, c := range want.Conditions {
		if podstatus.Owned(c.Type) {
			conditions = append(conditions, c)
		}
	}
	s.Conditions = conditions
	s.StartTime = want.StartTime
	s.QOSClass = want.QOSClass
	s.ObservedGeneration = max(s.ObservedGeneration, want.ObservedGeneration)
	s.HostIP, s.HostIPs = want.HostIP, want.HostIPs
	s.PodIP, s.PodIPs = want.PodIP, want.PodIPs
	s.InitContainerStatuses = want.InitContainerStatuses
	s.ContainerStatuses = want.ContainerStatuses
	s.EphemeralContainerStatuses = want.EphemeralContainerStatuses
	s.Resources, s.AllocatedResources = want.Resources, want.AllocatedResources
	return s
}

// sameStatus compares statuses; the order of conditions means nothing.
func sameStatus(a, b *v1.PodStatus) bool {
	x, y := *a, *b
	x.Conditions, y.Conditions = byType(a.Conditions), byType(b.Conditions)
	return equality.Semantic.DeepEqual(x, y)
}

func byType(conditions []v1.PodCondition) []v1.PodCondition {
	sorted := slices.Clone(conditions)
	slices.SortFunc(sorted, func(a, b v1.PodCondition) int { return strings.Compare(string(a.Type), string(b.Type)) })
	return sorted
}

// newer tells whether a is a later state of the object than b.
func newer(a, b *v1.Pod) bool {
	x, errX := strconv.ParseUint(a.ResourceVersion, 10, 64)
	y, errY := strconv.ParseUint(b.ResourceVersion, 10, 64)
	if errX != nil || errY != nil {
		return a.ResourceVersion != b.ResourceVersion
	}
	return x > y
}
