package node

import (
	"context"
	"fmt"
	"slices"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	"k8s.io/utils/ptr"
)

// askReadOnly asks the runtime, once, whether it can mount recursively read-only
// with the pod's handler (KEP-3857), if a container of the pod wants that.
func (w *worker) askReadOnly(ctx context.Context, pod *v1.Pod) error {
	if w.recursive != nil || pod == nil || !wantsRecursiveReadOnly(pod) {
		return nil
	}
	handler, err := w.n.objects.runtimeHandler(ctx, pod)
	if err != nil {
		return fmt.Errorf("read the pod's RuntimeClass: %w", err)
	}
	status, err := w.n.cfg.Runtime.Status(ctx, false)
	if err != nil {
		return fmt.Errorf("ask the container runtime for recursive read-only mounts: %w", err)
	}
	features, _ := featuresOf(status, handler)
	w.recursive = ptr.To(features.GetRecursiveReadOnlyMounts())
	return nil
}

// featuresOf are what the runtime says that a handler of its can do. known is false
// if it lists handlers, and not this one.
func featuresOf(status *runtimeapi.StatusResponse, handler string) (features *runtimeapi.RuntimeHandlerFeatures, known bool) {
	for _, h := range status.GetRuntimeHandlers() {
		if h.GetName() == handler {
			return h.GetFeatures(), true
		}
	}
	return nil, len(status.GetRuntimeHandlers()) == 0
}

func wantsRecursiveReadOnly(pod *v1.Pod) bool {
	none := podutil.VisitContainers(&pod.Spec, podutil.AllContainers, func(c *v1.Container, _ podutil.ContainerType) bool {
		return !slices.ContainsFunc(c.VolumeMounts, func(m v1.VolumeMount) bool {
			return ptr.Deref(m.RecursiveReadOnly, v1.RecursiveReadOnlyDisabled) != v1.RecursiveReadOnlyDisabled
		})
	})
	return !none
}
