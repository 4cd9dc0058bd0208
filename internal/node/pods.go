package node

import (
	"cmp"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Pod returns a pod of this node with its latest status, which the API may not
// have yet; false if there is none. The result must not be changed.
func (n *Node) Pod(namespace, name string) (*v1.Pod, bool) {
	pod, err := n.lister.Pods(namespace).Get(name)
	if err != nil || !n.mine(pod) {
		return nil, false
	}
	return n.withStatus(pod), true
}

// Pods returns all pods of this node with their latest statuses, sorted by
// namespace and name. They must not be changed.
func (n *Node) Pods() []*v1.Pod {
	list, err := n.lister.List(labels.Everything())
	if err != nil {
		return nil // a cache has no errors
	}
	var pods []*v1.Pod
	for _, pod := range list {
		if n.mine(pod) {
			pods = append(pods, n.withStatus(pod))
		}
	}
	slices.SortFunc(pods, func(a, b *v1.Pod) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return pods
}

func (n *Node) withStatus(pod *v1.Pod) *v1.Pod {
	w := n.existing(pod.UID)
	if w == nil {
		return pod
	}
	return w.status.apply(pod)
}
