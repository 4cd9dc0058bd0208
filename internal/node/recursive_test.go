package node

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"
)

func readOnlyMount(mode v1.RecursiveReadOnlyMode) func(*v1.Pod) {
	return func(p *v1.Pod) {
		p.Spec.Volumes = append(p.Spec.Volumes, v1.Volume{Name: "v", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}})
		p.Spec.Containers[0].VolumeMounts = append(p.Spec.Containers[0].VolumeMounts,
			v1.VolumeMount{Name: "v", MountPath: "/v", ReadOnly: true, RecursiveReadOnly: ptr.To(mode)})
	}
}

func recursiveHandler(can bool) *runtimeapi.StatusResponse {
	return &runtimeapi.StatusResponse{RuntimeHandlers: []*runtimeapi.RuntimeHandler{
		{Features: &runtimeapi.RuntimeHandlerFeatures{RecursiveReadOnlyMounts: can}},
	}}
}

// Mounts are recursively read-only where the runtime says that it can, and the
// pod's status tells.
func TestRecursiveReadOnly(t *testing.T) {
	for _, tc := range []struct {
		name string
		can  bool
		want v1.RecursiveReadOnlyMode
	}{
		{"by a runtime that can", true, v1.RecursiveReadOnlyEnabled},
		{"by one that can't", false, v1.RecursiveReadOnlyDisabled},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			pod := makePod("p").with(readOnlyMount(v1.RecursiveReadOnlyIfPossible)).obj()
			w.api.create(pod)
			w.start(announce(recursiveHandler(tc.can)))
			running := w.waitPhase(pod, v1.PodRunning)
			for _, m := range w.runtime.Config(string(pod.UID), "main").GetMounts() {
				if m.GetContainerPath() == "/v" && (!m.GetReadonly() || m.GetRecursiveReadOnly() != tc.can) {
					t.Errorf("mounted as %v", m)
				}
			}
			status := running.Status.ContainerStatuses[0].VolumeMounts
			if len(status) != 1 || ptr.Deref(status[0].RecursiveReadOnly, "") != tc.want {
				t.Errorf("the status tells of %+v, want %s", status, tc.want)
			}
		})
	}
}
