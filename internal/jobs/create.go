package jobs

import (
	"context"
	"errors"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
)

// create creates pods and says whether all of them exist now.
func (e *engine) create(ctx context.Context, s *jobState, job *batchv1.Job, creations []creation, began time.Time) bool {
	if len(creations) == 0 {
		return true
	}
	names := namesFor(job)
	created := make([]bool, len(creations))
	failures := make([]error, len(creations))
	ok := e.attempt(ctx, s, deedCreate, len(creations), func(i int) error {
		slot := creations[i].Slot
		err := e.createPod(ctx, s, newPod(job, names.at(slot), creations[i]), slot, began)
		created[i], failures[i] = err == nil, err
		return err
	})
	// In the order of the plan, so that events come in the same order each time.
	failed := false
	for i, c := range creations {
		switch err := failures[i]; {
		case created[i]:
			e.routinef(s, job, "SuccessfulCreate", "Created pod: %s", names.at(c.Slot))
		case err == nil || errors.Is(err, errUnfit) || failed || isNamespaceTerminating(err) || ctx.Err() != nil:
		default:
			failed = true
			e.eventf(job, corev1.EventTypeWarning, "FailedCreate", "Error creating: %v", err)
		}
	}
	e.metrics.created(job, created, failures)
	return ok
}

// createPod creates one pod. Whatever comes of it, the state of the Job knows before it returns.
func (e *engine) createPod(ctx context.Context, s *jobState, pod *corev1.Pod, slot int64, began time.Time) error {
	asked := e.clock.Now()
	got, err := e.client.CoreV1().Pods(pod.Namespace).Create(ctx, pod, metav1.CreateOptions{})
	switch {
	case err == nil:
		e.traceCreation(got, began, asked)
		e.learnPod(s, got, fromOwnWrite)
		s.useSlot(slot)
		return nil
	case apierrors.IsAlreadyExists(err):
		return e.collide(ctx, s, pod, slot)
	case isNamespaceTerminating(err):
		s.refuse()
		return errUnfit
	case isUncertain(err):
		s.suspect(slot, pod.Name)
		return err
	default:
		s.settleSlot(slot)
		return err
	}
}

// collide looks at the pod that has the name already. If it is the Job's and news, then somebody created it: an earlier attempt whose answer was
// lost, or another instance of the engine. It takes the place of the one to be created.
func (e *engine) collide(ctx context.Context, s *jobState, pod *corev1.Pod, slot int64) error {
	found, err := e.client.CoreV1().Pods(pod.Namespace).Get(ctx, pod.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return errUnfit // it went in between
	case err != nil:
		s.suspect(slot, pod.Name)
		return err
	}
	owner, _ := jobOwner(found)
	s.mu.Lock()
	defer s.mu.Unlock()
	known, lost := s.pods[found.UID] != nil, slices.Contains(s.unresolved, slot)
	s.takeSlot(slot)
	s.settle(slot)
	if owner == nil || owner.UID != s.uid {
		return errUnfit // somebody else's: the name is skipped
	}
	s.applyPod(found, fromLiveRead, e.clock.Now())
	if lost {
		return nil // it was created before, and the answer was lost
	}
	if ended := stageOf(found.Status.Phase, false).ended(); !known && (isTracked(found) || !ended) {
		// The view was behind. What else it may have missed has to be read before more is created.
		klog.FromContext(ctx).V(2).Info("Found a pod of the Job that the cache didn't have", "job", klog.KRef(s.namespace, s.name), "pod", found.Name)
		s.podsFrom = found.ResourceVersion
	}
	return errUnfit
}

// resolve finds out whether pods exist in slots whose creation had no answer, and that aren't needed any more.
func (e *engine) resolve(ctx context.Context, s *jobState, slots []int64) bool {
	names := s.names()
	return e.attempt(ctx, s, deedCreate, len(slots), func(i int) error {
		found, err := e.client.CoreV1().Pods(s.namespace).Get(ctx, names.at(slots[i]), metav1.GetOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
		if err == nil {
			e.learnPod(s, found, fromLiveRead)
		}
		s.settleSlot(slots[i])
		return nil
	})
}

func isNamespaceTerminating(err error) bool {
	return apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause)
}

// isUncertain says whether a request that ended with the error may have been carried out all the same.
func isUncertain(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return true
	}
	return apierrors.IsTimeout(err) || apierrors.IsServerTimeout(err) || apierrors.IsInternalError(err) ||
		apierrors.IsServiceUnavailable(err) || apierrors.IsUnexpectedServerError(err) || apierrors.ReasonForError(err) == metav1.StatusReasonUnknown
}

// suspect notes that the creation of the pod in the slot may or may not have happened.
func (s *jobState) suspect(slot int64, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.takeSlot(slot)
	for _, p := range s.pods {
		if p.Name == name && p.stage != stageGone {
			return // the informer was faster than the answer
		}
	}
	if !slices.Contains(s.unresolved, slot) {
		s.unresolved = append(slices.Clone(s.unresolved), slot)
	}
}

// useSlot notes that the slot holds a pod; settleSlot that it is known whether it does.
func (s *jobState) useSlot(slot int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.takeSlot(slot)
	s.settle(slot)
}

func (s *jobState) settleSlot(slot int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle(slot)
}

func (s *jobState) takeSlot(slot int64) {
	if s.indexes != nil {
		s.indexes.take(slot)
		return
	}
	s.nextSlot = max(s.nextSlot, slot+1)
}

func (s *jobState) settle(slot int64) {
	s.unresolved = slices.DeleteFunc(slices.Clone(s.unresolved), func(u int64) bool { return u == slot })
}

// resolveName notes that a pod with that name exists.
func (s *jobState) resolveName(name string) {
	if len(s.unresolved) == 0 {
		return
	}
	names := s.names()
	s.unresolved = slices.DeleteFunc(slices.Clone(s.unresolved), func(u int64) bool { return names.at(u) == name })
}

func (s *jobState) refuse() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused = true
	if s.job != nil {
		s.noteClosing()
	}
}

// names are those of the Job's pods.
func (s *jobState) names() podNames { return podNames{s.name, s.uid, s.indexes != nil} }
