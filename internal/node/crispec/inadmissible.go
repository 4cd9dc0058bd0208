package crispec

import (
	"context"
	"fmt"

	v1 "k8s.io/api/core/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	"k8s.io/kubernetes/pkg/kubelet/lifecycle"
	"k8s.io/kubernetes/pkg/kubelet/sysctl"
	"k8s.io/kubernetes/pkg/security/apparmor"
)

// Inadmissible says why a kubelet here wouldn't take the pod, with its reason for
// it, or returns "".
func (n Node) Inadmissible(ctx context.Context, pod *v1.Pod) (reason, message string) {
	if os := pod.Spec.OS; os != nil && os.Name != v1.Linux {
		return lifecycle.PodOSNotSupported, fmt.Sprintf("spec.os.name is %s: only linux pods can run here", os.Name)
	}
	if message := forbiddenSysctls(ctx, pod); message != "" {
		return sysctl.ForbiddenReason, message
	}
	if message := n.noAppArmor(pod); message != "" {
		return lifecycle.AppArmorNotAdmittedReason, message
	}
	return "", ""
}

// noAppArmor says that a container of the pod asks for a profile that the kernel
// can't enforce.
func (n Node) noAppArmor(pod *v1.Pod) string {
	if n.AppArmor {
		return ""
	}
	message := ""
	podutil.VisitContainers(&pod.Spec, podutil.AllContainers, func(c *v1.Container, _ podutil.ContainerType) bool {
		if p := apparmor.GetProfile(pod, c); p != nil && p.Type != v1.AppArmorProfileTypeUnconfined {
			message = fmt.Sprintf("Cannot enforce AppArmor: it is not enabled on this machine, and container %q asks for the profile %s: leave appArmorProfile out, or set its type to Unconfined",
				c.Name, p.Type)
		}
		return message == ""
	})
	return message
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
