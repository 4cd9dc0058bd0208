package node

import (
	"context"
	"fmt"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"
)

// reasonNodeAffinity is the kubelet's, by the name of the scheduler's plugin.
const reasonNodeAffinity = "NodeAffinity"

// misplaced says that the pod asks for another node than this one, to which
// somebody has bound it past the scheduler; "" if it doesn't, or nobody can tell now.
func (n *Node) misplaced(ctx context.Context, pod *v1.Pod) string {
	if len(pod.Spec.NodeSelector) == 0 && (pod.Spec.Affinity == nil || pod.Spec.Affinity.NodeAffinity == nil) {
		return ""
	}
	node, err := n.cfg.Client.CoreV1().Nodes().Get(ctx, n.cfg.NodeName, metav1.GetOptions{})
	if err != nil {
		klog.FromContext(ctx).V(2).Info("The Node can't be read to see whether a pod asks for it", "err", err)
		return ""
	}
	if match, err := nodeaffinity.GetRequiredNodeAffinity(pod).Match(node); err != nil || !match {
		return fmt.Sprintf("spec.nodeName is %s, and that node doesn't match the pod's nodeSelector or required node affinity", node.Name)
	}
	return ""
}
