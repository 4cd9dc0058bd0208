package volumes

import (
	"context"
	"fmt"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
)

// objectKind names the kinds that volumes mirror, as the kubelet's messages do.
type objectKind string

const (
	kindConfigMap objectKind = "configmap"
	kindSecret    objectKind = "secret"
	kindClaim     objectKind = "persistentvolumeclaim"
)

type objectKey struct {
	kind            objectKind
	namespace, name string
}

// objectsOf lists the ConfigMaps and Secrets that the pod's volumes mirror or its
// containers' environments refer to, and the claims that it uses.
func objectsOf(pod *v1.Pod) []objectKey {
	var keys []objectKey
	visitor := func(kind objectKind) podutil.Visitor {
		return func(name string) bool {
			keys = append(keys, objectKey{kind, pod.Namespace, name})
			return true
		}
	}
	podutil.VisitPodConfigmapNames(pod, visitor(kindConfigMap))
	podutil.VisitPodSecretNames(pod, visitor(kindSecret))
	for i := range pod.Spec.Volumes {
		if name := claimName(pod, &pod.Spec.Volumes[i]); name != "" {
			visitor(kindClaim)(name)
		}
	}
	return keys
}

// useObjects notes, before anything is read, that the pod is to be told of
// changes to the objects it uses. m.mu must be held.
func (m *Manager) useObjects(pod *v1.Pod, st *podState) {
	for _, key := range objectsOf(pod) {
		st.objects[key] = struct{}{}
		if m.users[key] == nil {
			m.users[key] = map[types.UID]struct{}{}
		}
		m.users[key][pod.UID] = struct{}{}
	}
}

// dropObjects undoes useObjects. m.mu must be held.
func (m *Manager) dropObjects(uid types.UID, st *podState) {
	for key := range st.objects {
		delete(m.users[key], uid)
		if len(m.users[key]) == 0 {
			delete(m.users, key)
		}
	}
}

func (m *Manager) watchObjects() error {
	for kind, informer := range map[objectKind]cache.SharedIndexInformer{
		kindConfigMap: m.cfg.ConfigMaps.Informer(),
		kindSecret:    m.cfg.Secrets.Informer(),
		kindClaim:     m.cfg.Claims.Informer(),
	} {
		_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: func(obj any) { m.changed(kind, obj) },
			UpdateFunc: func(old, cur any) {
				if resourceVersion(old) != resourceVersion(cur) {
					m.changed(kind, cur)
				}
			},
			DeleteFunc: func(obj any) { m.changed(kind, obj) },
		})
		if err != nil {
			return fmt.Errorf("watch %ss: %w", kind, err)
		}
	}
	return nil
}

func resourceVersion(obj any) string {
	if o, ok := obj.(metav1.Object); ok {
		return o.GetResourceVersion()
	}
	return ""
}

// changed tells every pod that uses the object.
func (m *Manager) changed(kind objectKind, obj any) {
	if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = gone.Obj
	}
	o, ok := obj.(metav1.Object)
	if !ok {
		return
	}
	key := objectKey{kind, o.GetNamespace(), o.GetName()}
	m.mu.Lock()
	uids := make([]types.UID, 0, len(m.users[key]))
	for uid := range m.users[key] {
		uids = append(uids, uid)
	}
	m.mu.Unlock()
	for _, uid := range uids {
		m.cfg.OnChange(uid)
	}
}

// configMap returns the named ConfigMap. The error is NotFound, worded as the
// kubelet does, if neither the cache nor the API server has it.
func (m *Manager) configMap(ctx context.Context, st *podState, namespace, name string) (*v1.ConfigMap, error) {
	return readObject(st, objectKey{kindConfigMap, namespace, name}, reader[*v1.ConfigMap]{
		cached: m.cfg.ConfigMaps.Lister().ConfigMaps(namespace).Get,
		live: func(name string) (*v1.ConfigMap, error) {
			return m.cfg.Client.CoreV1().ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{})
		},
		immutable: func(c *v1.ConfigMap) bool { return c.Immutable != nil && *c.Immutable },
	})
}

// secret is configMap for Secrets.
func (m *Manager) secret(ctx context.Context, st *podState, namespace, name string) (*v1.Secret, error) {
	return readObject(st, objectKey{kindSecret, namespace, name}, reader[*v1.Secret]{
		cached: m.cfg.Secrets.Lister().Secrets(namespace).Get,
		live: func(name string) (*v1.Secret, error) {
			return m.cfg.Client.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
		},
		immutable: func(s *v1.Secret) bool { return s.Immutable != nil && *s.Immutable },
	})
}

// reader is how objects of one kind are read.
type reader[T any] struct {
	cached, live func(name string) (T, error)
	immutable    func(T) bool
}

// readObject reads from the cache, and from the API server what the cache
// doesn't have: a pod may arrive before the ConfigMap created just before it. An
// immutable object is kept as first seen, for the life of the pod.
func readObject[T any](st *podState, key objectKey, r reader[T]) (T, error) {
	if obj, ok := st.frozen[key].(T); ok {
		return obj, nil
	}
	obj, err := r.cached(key.name)
	if apierrors.IsNotFound(err) {
		obj, err = r.live(key.name)
	}
	var zero T
	switch {
	case apierrors.IsNotFound(err):
		return zero, apierrors.NewNotFound(v1.Resource(string(key.kind)), key.name)
	case err != nil:
		return zero, fmt.Errorf("%s %q: %w", key.kind, key.name, err)
	}
	if r.immutable(obj) {
		st.frozen[key] = obj
	}
	return obj, nil
}
