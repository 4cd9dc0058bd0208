package node

import (
	"errors"
	"testing"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"errand.dev/errand/internal/node/fakecri"
)

// mountsImage is a container that mounts the image ref as the volume v.
func mountsImage(ref string, policy v1.PullPolicy) func(*v1.Pod) {
	return func(p *v1.Pod) {
		p.Spec.Volumes = []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{Image: &v1.ImageVolumeSource{Reference: ref, PullPolicy: policy}}}}
		p.Spec.Containers[0].VolumeMounts = []v1.VolumeMount{{Name: "v", MountPath: "/data", SubPath: "sub"}}
	}
}

// The image is pulled by its own policy, and named to the runtime as it was pulled.
func TestImageVolume(t *testing.T) {
	w := newWorld(t)
	var mounts []*runtimeapi.Mount
	w.runtime.Behave = func(c *runtimeapi.ContainerConfig) fakecri.Behaviour {
		for _, m := range c.GetMounts() {
			if m.GetImage() != nil {
				mounts = append(mounts, m)
			}
		}
		return fakecri.Behaviour{Exits: true}
	}
	w.runtime.AddImage("data:1")
	pod := makePod("p").with(mountsImage("data:1", v1.PullAlways)).obj()
	w.api.create(pod)
	w.start()
	w.waitPhase(pod, v1.PodSucceeded)
	if len(mounts) != 1 {
		t.Fatalf("images are mounted: %v", mounts)
	}
	m := mounts[0]
	if m.Image.Image == "" || m.Image.Image == "data:1" || m.Image.UserSpecifiedImage != "data:1" || m.ImageSubPath != "sub" || m.ContainerPath != "/data" || !m.Readonly || m.HostPath != "" {
		t.Errorf("mounted is %v", m)
	}
	if !w.events.has(`Pulling: Pulling image "data:1"`) {
		t.Errorf("events:\n%s", w.events)
	}
}

// A container whose volume's image can't be had waits for it as for its own.
func TestImageVolumeMissing(t *testing.T) {
	w := newWorld(t)
	never := makePod("never").with(mountsImage("absent:1", v1.PullNever)).obj()
	fails := makePod("fails").with(mountsImage("absent:1", v1.PullIfNotPresent)).obj()
	w.runtime.PullFails("absent:1", errors.New("no such image"))
	w.api.create(never)
	w.api.create(fails)
	w.start()
	w.waitWaiting(never, "ErrImageNeverPull")
	w.waitWaiting(fails, "ErrImagePull")
	if r := append(running(w, never), running(w, fails)...); len(r) > 0 {
		t.Errorf("%v run", r)
	}
	w.runtime.PullFails("absent:1", nil)
	w.stepUntil(func() bool {
		p, _ := w.api.get(fails)
		return p.Status.Phase == v1.PodRunning
	})
}
