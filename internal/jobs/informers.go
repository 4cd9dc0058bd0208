package jobs

import (
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
)

// controllerIndex is the index of the pod informer by the UID of what controls the pod.
const controllerIndex = "errand.dev/controller-uid"

// informerCaches are the caches of two informers, of which that of pods has the controllerIndex.
type informerCaches struct{ pods, jobs cache.Indexer }

var _ caches = informerCaches{}

func (c informerCaches) PodsVersion() string { return c.pods.LastStoreSyncResourceVersion() }

func (c informerCaches) JobsVersion() string { return c.jobs.LastStoreSyncResourceVersion() }

func (c informerCaches) PodsOf(uid types.UID) []*corev1.Pod {
	objs, err := c.pods.ByIndex(controllerIndex, string(uid))
	if err != nil {
		panic(err) // the index was added by New
	}
	pods := make([]*corev1.Pod, 0, len(objs))
	for _, obj := range objs {
		if pod, ok := obj.(*corev1.Pod); ok {
			pods = append(pods, pod)
		}
	}
	return pods
}

func (c informerCaches) JobNamed(namespace, name string) *batchv1.Job {
	obj, _, err := c.jobs.GetByKey(cache.ObjectName{Namespace: namespace, Name: name}.String())
	if err != nil {
		return nil
	}
	job, _ := obj.(*batchv1.Job)
	return job
}

// indexByController is the function of the controllerIndex.
func indexByController(obj any) ([]string, error) {
	if pod, ok := obj.(*corev1.Pod); ok {
		if ref := metav1.GetControllerOfNoCopy(pod); ref != nil {
			return []string{string(ref.UID)}, nil
		}
	}
	return nil, nil
}

// handlers makes an informer's handler of two functions; old is nil for an object that is new.
func handlers[T any](changed func(old, obj *T, from source), gone func(*T)) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerDetailedFuncs{
		AddFunc: func(obj any, initial bool) {
			if t, ok := obj.(*T); ok {
				from := fromInformer
				if initial {
					from = fromInitialList
				}
				changed(nil, t, from)
			}
		},
		UpdateFunc: func(old, obj any) {
			was, _ := old.(*T)
			if t, ok := obj.(*T); ok {
				changed(was, t, fromInformer)
			}
		},
		DeleteFunc: func(obj any) {
			if unknown, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = unknown.Obj
			}
			if t, ok := obj.(*T); ok {
				gone(t)
			}
		},
	}
}
