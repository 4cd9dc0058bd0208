package node

import (
	"context"
	"fmt"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
)

// wantsUserNamespace tells whether the pod asks for a user namespace of its own
// (KEP-127).
func wantsUserNamespace(pod *v1.Pod) bool {
	return pod.Spec.HostUsers != nil && !*pod.Spec.HostUsers
}

// userNamespace is what the pod's sandboxes and containers have: the same range of
// IDs until the pod's end, or nil for the host's.
func (w *worker) userNamespace(pod *v1.Pod) (*runtimeapi.UserNamespace, error) {
	if !wantsUserNamespace(pod) {
		return nil, nil
	}
	return w.n.users.Allot(w.uid)
}

// infoNoUserNamespaces is where errand's own runtime says in its verbose status
// why it has none.
const infoNoUserNamespaces = "noUserNamespaces"

// withoutUserNamespace says why the pod can't have the user namespace that it asks
// for; "" if it can, or asks for none, or nobody can tell now.
func (n *Node) withoutUserNamespace(ctx context.Context, pod *v1.Pod) string {
	if !wantsUserNamespace(pod) {
		return ""
	}
	handler, err := n.objects.runtimeHandler(ctx, pod)
	if err != nil {
		return "" // which the making of the sandbox meets as well
	}
	status, err := n.cfg.Runtime.Status(ctx, true)
	if err != nil {
		klog.FromContext(ctx).V(2).Info("The container runtime can't be asked for user namespaces", "err", err)
		return ""
	}
	features, known := featuresOf(status, handler)
	if features.GetUserNamespaces() || !known {
		return "" // of an unknown handler the making of the sandbox says so
	}
	message := "can't set spec.hostUsers=false: the container runtime has no user namespaces here"
	if handler != "" {
		message += fmt.Sprintf(" with the handler %q", handler)
	}
	if why := status.GetInfo()[infoNoUserNamespaces]; why != "" {
		message += ": " + why
	}
	return message
}
