package jobs

import (
	"context"
	"encoding/json"
	"fmt"

	batchv1 "k8s.io/api/batch/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// claim adopts a pod that the Job selects and nothing controls, or lets go of one that the Job controls but doesn't select.
func (e *engine) claim(ctx context.Context, s *jobState, job *batchv1.Job, c claim) error {
	if c.Adopt {
		// A Job that was deleted meanwhile must not adopt: the pod would be deleted with it.
		live, err := e.client.BatchV1().Jobs(job.Namespace).Get(ctx, job.Name, metav1.GetOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
		if err != nil || live.UID != job.UID || live.DeletionTimestamp != nil {
			s.mu.Lock()
			clear(s.orphans)
			s.mu.Unlock()
			return errUnfit
		}
	}
	got, err := e.client.CoreV1().Pods(job.Namespace).Patch(ctx, c.Name, types.StrategicMergePatchType, claimPatch(job, c), metav1.PatchOptions{})
	switch {
	case err == nil:
		s.mu.Lock()
		delete(s.orphans, c.UID)
		s.mu.Unlock()
		e.learnPod(s, got, fromOwnWrite)
		return nil
	case apierrors.IsNotFound(err), apierrors.IsConflict(err), apierrors.IsInvalid(err):
		// The pod is gone, another, or another's. The informer will tell; until then it is none of the Job's.
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.orphans, c.UID)
		s.buryPod(c.UID, c.ResourceVersion, e.clock.Now())
		return errUnfit
	default:
		return fmt.Errorf("claiming pod %s/%s: %w", job.Namespace, c.Name, err)
	}
}

// claimPatch makes the Job the controller of the pod and puts the tracking finalizer on, or takes both off.
func claimPatch(job *batchv1.Job, c claim) []byte {
	meta := map[string]any{"uid": c.UID}
	if c.Adopt {
		meta["ownerReferences"] = []any{metav1.NewControllerRef(job, batchv1.SchemeGroupVersion.WithKind("Job"))}
		meta["finalizers"] = []string{batchv1.JobTrackingFinalizer}
	} else {
		meta["ownerReferences"] = []any{map[string]any{"$patch": "delete", "uid": job.UID}}
		meta["$deleteFromPrimitiveList/finalizers"] = []string{batchv1.JobTrackingFinalizer}
	}
	data, err := json.Marshal(map[string]any{"metadata": meta})
	if err != nil {
		panic(err) // strings can't fail to encode
	}
	return data
}
