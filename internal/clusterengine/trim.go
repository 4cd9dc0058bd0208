package clusterengine

import (
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	"errand.dev/errand/internal/jobs"
)

// trim makes a cache's transform: it takes off what the engine of that manager
// never reads. All pods have to be watched, for by their labels a Job's pods
// can't be told from others with certainty; but of another controller's pod, a
// few hundred bytes are enough to know that it is one.
func trim(manager string) cache.TransformFunc {
	return func(obj any) (any, error) {
		switch o := obj.(type) {
		case *slimPod:
			jobs.TrimPod(&o.Pod)
			return &o.Pod, nil
		case *corev1.Pod:
			jobs.TrimPod(o)
		case *batchv1.Job:
			o.ManagedFields = nil // the API server keeps them when a status is written without
			if ptr.Deref(o.Spec.ManagedBy, batchv1.JobControllerName) != manager {
				o.Spec.Template = corev1.PodTemplateSpec{}
			}
		}
		return obj, nil
	}
}
