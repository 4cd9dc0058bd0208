package crispec

import (
	"context"
	"fmt"

	v1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/pkg/kubelet/lifecycle"
	"k8s.io/kubernetes/pkg/kubelet/sysctl"
)

// ReasonSysctlForbidden is the status reason of pods that ask for a sysctl that
// isn't safe, as on any node.
const ReasonSysctlForbidden = sysctl.ForbiddenReason

// ForbiddenSysctls says which of the pod's sysctls a node refuses, or "". Those
// are allowed that a kubelet allows unless it is told otherwise: they belong to
// the pod's namespaces, and no other pod feels them.
func ForbiddenSysctls(ctx context.Context, pod *v1.Pod) string {
	if pod.Spec.SecurityContext == nil || len(pod.Spec.SecurityContext.Sysctls) == 0 {
		return ""
	}
	allowed, err := sysctl.NewAllowlist(sysctl.SafeSysctlAllowlist(ctx))
	if err != nil {
		return fmt.Sprintf("forbidden sysctls: which are safe can't be told: %v", err)
	}
	return allowed.Admit(ctx, &lifecycle.PodAdmitAttributes{Pod: pod}).Message
}
