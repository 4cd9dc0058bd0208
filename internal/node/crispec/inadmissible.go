package crispec

import (
	"context"
	"fmt"

	v1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/pkg/kubelet/lifecycle"
	"k8s.io/kubernetes/pkg/kubelet/sysctl"
)

// Inadmissible says why no Linux node takes the pod, with the kubelet's reason
// for it, or returns "".
func Inadmissible(ctx context.Context, pod *v1.Pod) (reason, message string) {
	if os := pod.Spec.OS; os != nil && os.Name != v1.Linux {
		return lifecycle.PodOSNotSupported, fmt.Sprintf("spec.os.name is %s: only linux pods can run here", os.Name)
	}
	if message := forbiddenSysctls(ctx, pod); message != "" {
		return sysctl.ForbiddenReason, message
	}
	return "", ""
}

// forbiddenSysctls says which of the pod's sysctls are refused. Those are
// allowed that a kubelet allows unless it is told otherwise: they belong to the
// pod's namespaces, and no other pod feels them.
func forbiddenSysctls(ctx context.Context, pod *v1.Pod) string {
	if pod.Spec.SecurityContext == nil || len(pod.Spec.SecurityContext.Sysctls) == 0 {
		return ""
	}
	allowed, err := sysctl.NewAllowlist(sysctl.SafeSysctlAllowlist(ctx))
	if err != nil {
		return fmt.Sprintf("forbidden sysctls: which are safe can't be told: %v", err)
	}
	return allowed.Admit(ctx, &lifecycle.PodAdmitAttributes{Pod: pod}).Message
}
