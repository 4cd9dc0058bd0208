package node

import (
	"context"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
)

// wantsRecursiveReadOnly says whether a mount of the pod's is to be read-only with
// what is mounted below it (KEP-3857).
func wantsRecursiveReadOnly(pod *v1.Pod) bool {
	wants := false
	podutil.VisitContainers(&pod.Spec, podutil.AllContainers, func(c *v1.Container, _ podutil.ContainerType) bool {
		for _, m := range c.VolumeMounts {
			wants = wants || m.RecursiveReadOnly != nil && *m.RecursiveReadOnly != v1.RecursiveReadOnlyDisabled
		}
		return !wants
	})
	return wants
}

// askForRecursiveReadOnly asks the runtime, once it matters, whether the pod's
// handler can mount so. Until it has answered it can't.
func (w *worker) askForRecursiveReadOnly(ctx context.Context, pod *v1.Pod) {
	if w.askedForRecursive || pod == nil || !wantsRecursiveReadOnly(pod) {
		return
	}
	handler, err := w.n.objects.runtimeHandler(ctx, pod)
	if err != nil {
		return // which the making of the sandbox meets as well
	}
	status, err := w.n.cfg.Runtime.Status(ctx, false)
	if err != nil {
		klog.FromContext(ctx).V(2).Info("The container runtime can't be asked for recursive read-only mounts", "err", err)
		return
	}
	features, _ := featuresOf(status, handler)
	w.recursive, w.askedForRecursive = features.GetRecursiveReadOnlyMounts(), true
}

// featuresOf are what the runtime says that a handler of its can do. known is false
// if it lists handlers, and not this one.
func featuresOf(status *runtimeapi.StatusResponse, handler string) (features *runtimeapi.RuntimeHandlerFeatures, known bool) {
	known = len(status.GetRuntimeHandlers()) == 0
	for _, h := range status.GetRuntimeHandlers() {
		if h.GetName() == handler {
			return h.GetFeatures(), true
		}
	}
	return nil, known
}
