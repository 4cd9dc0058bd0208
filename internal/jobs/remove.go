package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// delete deletes pods and says whether each deletion was accepted.
func (e *engine) delete(ctx context.Context, s *jobState, job *batchv1.Job, deletions []deletion) bool {
	done := make([]bool, len(deletions))
	failures := make([]error, len(deletions))
	ok := e.attempt(ctx, s, deedDelete, len(deletions), func(i int) error {
		var err error
		done[i], err = e.deletePod(ctx, s, deletions[i])
		failures[i] = err
		return err
	})
	failed := false
	for i, d := range deletions {
		switch err := failures[i]; {
		case done[i]:
			e.routinef(s, job, "SuccessfulDelete", "Deleted pod: %s", d.Name)
		case err == nil || errors.Is(err, errUnfit) || failed || ctx.Err() != nil:
		default:
			failed = true
			e.eventf(job, corev1.EventTypeWarning, "FailedDelete", "Error deleting: %v", err)
		}
	}
	return ok
}

// deletePod deletes one pod and says whether it was there to be deleted.
func (e *engine) deletePod(ctx context.Context, s *jobState, d deletion) (bool, error) {
	if d.Discard {
		// Only if the pod is as it was known: one that has ended in between is to be counted, not discarded.
		if err := e.release(ctx, s, d.podRef, true); err != nil {
			return false, err
		}
	}
	err := e.client.CoreV1().Pods(s.namespace).Delete(ctx, d.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &d.UID}})
	now := e.clock.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil:
		s.markDeleting(d.UID, now)
		return true, nil
	case apierrors.IsNotFound(err), apierrors.IsConflict(err): // gone; in its place may be another by the same name
		s.buryPod(d.UID, d.ResourceVersion, now)
		return false, nil
	default:
		return false, err
	}
}

// release takes the tracking finalizer off a pod: if unchanged, only a pod that hasn't changed since it was known, else it returns errUnfit.
func (e *engine) release(ctx context.Context, s *jobState, ref podRef, unchanged bool) error {
	pods := e.client.CoreV1().Pods(s.namespace)
	if !unchanged {
		s.letGo(ref.UID)
	}
	for range releaseTries {
		got, err := pods.Patch(ctx, ref.Name, types.JSONPatchType, releasePatch(ref, unchanged), metav1.PatchOptions{})
		if err == nil {
			e.learnPod(s, got, fromOwnWrite)
			return nil
		}
		if !apierrors.IsNotFound(err) && !apierrors.IsInvalid(err) && !apierrors.IsConflict(err) {
			return fmt.Errorf("removing the tracking finalizer of pod %s/%s: %w", s.namespace, ref.Name, err)
		}
		found, err := pods.Get(ctx, ref.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err) || err == nil && found.UID != ref.UID:
			s.mu.Lock()
			s.buryPod(ref.UID, ref.ResourceVersion, e.clock.Now())
			s.mu.Unlock()
			return errIf(unchanged, errUnfit)
		case err != nil:
			return err
		}
		e.learnPod(s, found, fromLiveRead)
		ref.FinalizerAt = slices.Index(found.Finalizers, batchv1.JobTrackingFinalizer)
		switch {
		case unchanged:
			return errUnfit
		case ref.FinalizerAt < 0:
			return nil
		}
	}
	return errUnfit
}

// letGo notes that the finalizer of a pod that has been counted is about to be taken off.
func (s *jobState) letGo(uid types.UID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.pods[uid]; p != nil {
		p.letGo = true
	}
}

// releaseTries is how often a pod's list of finalizers may change under our hands before its Job is decided anew.
const releaseTries = 3

func errIf(cond bool, err error) error {
	if cond {
		return err
	}
	return nil
}

// patchOperation is an operation of RFC 6902.
type patchOperation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value string `json:"value,omitempty"`
}

// releasePatch takes the tracking finalizer off that very pod. It tests what it is about to change, so that it can't hit another pod of the same name.
func releasePatch(ref podRef, unchanged bool) []byte {
	finalizer := fmt.Sprintf("/metadata/finalizers/%d", max(ref.FinalizerAt, 0))
	ops := []patchOperation{{"test", "/metadata/uid", string(ref.UID)}}
	if unchanged {
		ops = append(ops, patchOperation{"test", "/metadata/resourceVersion", ref.ResourceVersion})
	}
	ops = append(ops, patchOperation{"test", finalizer, batchv1.JobTrackingFinalizer}, patchOperation{"remove", finalizer, ""})
	data, err := json.Marshal(ops)
	if err != nil {
		panic(err) // strings can't fail to encode
	}
	return data
}
