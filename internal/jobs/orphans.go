package jobs

import (
	"context"
	"fmt"
	"maps"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// releaseOrphans takes the tracking finalizer off all pods of a Job that doesn't exist any more, so that they can be deleted.
func (e *engine) releaseOrphans(ctx context.Context, s *jobState) error {
	s.mu.Lock()
	refs := s.view(e.clock.Now()).tracked(func(*pod) bool { return true })
	s.mu.Unlock()
	err := inParallel(len(refs), e.inFlight, func(i int) error { return e.release(ctx, s, refs[i], false) })
	if err != nil {
		return fmt.Errorf("releasing the pods of Job %s/%s, which is gone: %w", s.namespace, s.name, err)
	}
	s.mu.Lock()
	maps.DeleteFunc(s.pods, func(_ types.UID, p *pod) bool { return p.stage.ended() && !p.tracked() })
	s.mu.Unlock()
	e.closeIfOver(s)
	return nil
}

// closeIfOver forgets a Job that is gone with all its pods.
func (e *engine) closeIfOver(s *jobState) {
	s.mu.Lock()
	over := s.gone && len(s.pods) == 0
	s.mu.Unlock()
	if over {
		e.registry.close(s)
	}
}

// releaseLoose takes the tracking finalizer off a pod that nothing controls, unless a Job has come for it meanwhile.
func (e *engine) releaseLoose(ctx context.Context, name types.NamespacedName, uid types.UID) error {
	obj := e.registry.loosePod(name.Namespace, uid)
	if obj == nil || !isTracked(obj) {
		return nil
	}
	for _, s := range e.registry.suitors(obj) {
		if e.court(s, obj) {
			return nil
		}
	}
	_, err := e.client.CoreV1().Pods(name.Namespace).Patch(ctx, name.Name, types.JSONPatchType, releasePatch(refOf(obj), false), metav1.PatchOptions{})
	if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) || apierrors.IsInvalid(err) {
		return nil // if it is another pod by now, or has changed, its own event follows
	}
	return fmt.Errorf("removing the tracking finalizer of pod %s, which nothing controls: %w", name, err)
}
