package node

import (
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"errand.dev/errand/internal/node/fakecri"
)

// An ephemeral container runs once beside the others, sees its target's processes,
// is shown, and doesn't hold the pod up.
func TestEphemeralContainer(t *testing.T) {
	w := newWorld(t)
	var options []*runtimeapi.NamespaceOption
	w.runtime.Behave = func(c *runtimeapi.ContainerConfig) fakecri.Behaviour {
		if c.GetMetadata().GetName() == "look" {
			options = append(options, c.GetLinux().GetSecurityContext().GetNamespaceOptions())
			return fakecri.Behaviour{Exits: true, ExitCode: 3}
		}
		return fakecri.Behaviour{}
	}
	pod := makePod("p").restart(v1.RestartPolicyAlways).obj()
	w.api.create(pod)
	a := w.start()
	pod = w.waitPhase(pod, v1.PodRunning)
	w.api.change(pod, func(p *v1.Pod) {
		p.Spec.EphemeralContainers = []v1.EphemeralContainer{
			{EphemeralContainerCommon: v1.EphemeralContainerCommon(container("look")), TargetContainerName: "main"},
			{EphemeralContainerCommon: v1.EphemeralContainerCommon(container("lost")), TargetContainerName: "nobody"},
		}
	})
	pod = w.wait(pod, "the ephemeral containers", func(p *v1.Pod) bool {
		s := p.Status.EphemeralContainerStatuses
		return len(s) == 2 && s[0].State.Terminated != nil && s[1].State.Waiting != nil && s[1].State.Waiting.Reason == "CreateContainerConfigError"
	})
	s := pod.Status.EphemeralContainerStatuses
	if s[0].State.Terminated.ExitCode != 3 || s[0].RestartCount != 0 || s[1].State.Waiting.Message != "unable to find target container nobody" {
		t.Errorf("it is shown as %+v", s)
	}
	if !w.events.has("spec.ephemeralContainers{look}") || pod.Status.Phase != v1.PodRunning {
		t.Errorf("%s, %s", pod.Status.Phase, w.events)
	}
	// Another agent doesn't run it again.
	a.kill()
	a = w.start()
	a.waitIdle()
	if len(options) != 1 || options[0].GetPid() != runtimeapi.NamespaceMode_TARGET || "fake://"+options[0].GetTargetId() != pod.Status.ContainerStatuses[0].ContainerID {
		t.Errorf("it was made with %v", options)
	}
	if r := running(w, pod); !slices.Equal(r, []string{"main/0"}) {
		t.Errorf("%v run", r)
	}
}
