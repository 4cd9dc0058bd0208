package crispec

import (
	"fmt"
	"strings"

	v1 "k8s.io/api/core/v1"
)

// ReasonUnsupported is the status reason of pods that ask for what this node
// can't give.
const ReasonUnsupported = "UnsupportedPodSpec"

// Unsupported names the fields of the pod that this node can't honour, with
// what to do instead, or returns "". Running such a pod without them would be
// running it wrongly.
func Unsupported(pod *v1.Pod) string {
	var fields []string
	add := func(set bool, field, instead string) {
		if set {
			fields = append(fields, field+" ("+instead+")")
		}
	}
	spec := &pod.Spec
	add(len(spec.ResourceClaims) > 0, "spec.resourceClaims", "dynamic resource allocation is not supported: use limits, or hostPath volumes for devices")
	for _, l := range []struct {
		field string
		list  []v1.Container
	}{{"initContainers", spec.InitContainers}, {"containers", spec.Containers}} {
		for i := range l.list {
			unsupportedInContainer(&l.list[i], fmt.Sprintf("spec.%s[%d].", l.field, i), add)
		}
	}
	if len(fields) == 0 {
		return ""
	}
	return "not supported by errand: " + strings.Join(fields, "; ")
}

func unsupportedInContainer(c *v1.Container, at string, add func(set bool, field, instead string)) {
	add(len(c.VolumeDevices) > 0, at+"volumeDevices", "block volumes are not supported")
}
