package node

import (
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"
)

// Whether mounts are read-only recursively is the runtime's to say.
func TestRecursiveReadOnly(t *testing.T) {
	mounts := func(mode v1.RecursiveReadOnlyMode) func(*v1.Pod) {
		return func(p *v1.Pod) {
			p.Spec.Volumes = []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}}}
			p.Spec.Containers[0].VolumeMounts = []v1.VolumeMount{{Name: "v", MountPath: "/v", ReadOnly: true, RecursiveReadOnly: ptr.To(mode)}}
		}
	}
	for name, tc := range map[string]struct {
		can  bool
		mode v1.RecursiveReadOnlyMode
		want bool
	}{
		"not asked for":       {true, v1.RecursiveReadOnlyDisabled, false},
		"enabled":             {true, v1.RecursiveReadOnlyEnabled, true},
		"possible":            {true, v1.RecursiveReadOnlyIfPossible, true},
		"isn't possible here": {false, v1.RecursiveReadOnlyIfPossible, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			pod := makePod("p").with(mounts(tc.mode)).obj()
			w.api.create(pod)
			w.start(announce(&runtimeapi.StatusResponse{RuntimeHandlers: []*runtimeapi.RuntimeHandler{
				{Features: &runtimeapi.RuntimeHandlerFeatures{RecursiveReadOnlyMounts: tc.can}},
				{Name: "other", Features: &runtimeapi.RuntimeHandlerFeatures{RecursiveReadOnlyMounts: !tc.can}},
			}}))
			got := w.waitPhase(pod, v1.PodRunning)
			mounted := w.runtime.Config(string(pod.UID), pod.Spec.Containers[0].Name).GetMounts()[0]
			if !mounted.GetReadonly() || mounted.GetRecursiveReadOnly() != tc.want {
				t.Errorf("mounted is %v", mounted)
			}
			told := got.Status.ContainerStatuses[0].VolumeMounts[0].RecursiveReadOnly
			if (ptr.Deref(told, "") == v1.RecursiveReadOnlyEnabled) != tc.want {
				t.Errorf("the status says %v", told)
			}
		})
	}
	t.Run("needed", func(t *testing.T) {
		w := newWorld(t)
		pod := makePod("p").with(mounts(v1.RecursiveReadOnlyEnabled)).obj()
		w.api.create(pod)
		w.start(announce(handlers(true)))
		got := w.waitWaiting(pod, reasonConfig)
		if said := got.Status.ContainerStatuses[0].State.Waiting.Message; !strings.Contains(said, "not supported by the runtime") {
			t.Error(said)
		}
	})
}
