package node

import (
	"fmt"

	v1 "k8s.io/api/core/v1"

	"errand.dev/errand/internal/node/runtimepod"
)

// ephemeral returns the ephemeral container of the name, nil if it is none.
func ephemeral(pod *v1.Pod, name string) *v1.EphemeralContainer {
	for i := range pod.Spec.EphemeralContainers {
		if pod.Spec.EphemeralContainers[i].Name == name {
			return &pod.Spec.EphemeralContainers[i]
		}
	}
	return nil
}

// target is the ID of the container whose processes an ephemeral container is to
// see, "" if it names none.
func target(pod *v1.Pod, rt *runtimepod.Pod, c *v1.Container) (string, error) {
	e := ephemeral(pod, c.Name)
	if e == nil || e.TargetContainerName == "" {
		return "", nil
	}
	run := rt.Latest(e.TargetContainerName)
	if run == nil {
		return "", fmt.Errorf("unable to find target container %s", e.TargetContainerName)
	}
	return run.ID, nil
}
