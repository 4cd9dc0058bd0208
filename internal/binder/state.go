package binder

import (
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
)

// state is the cluster as the binder knows it: nodes, the pods on them, and
// what those leave free. It isn't safe for concurrent use.
type state struct {
	nodes      map[string]*nodeInfo
	candidates []*nodeInfo // nodes that exist, by name
	placed     map[types.UID]*placedPod
	// repelling is the placed pods with required anti-affinity.
	repelling map[types.UID]*placedPod
	// nominated is pods for which room is kept on a node, until its pods have gone.
	nominated  map[types.UID]*placedPod
	namespaces map[string]labels.Set
	// users counts the placed pods that use a claim, by namespace/name.
	users   map[string]int
	storage *storage
}

// nodeInfo is a node and what pods take of it. Pods may be known before their
// node is, or after: then node is nil.
type nodeInfo struct {
	name        string
	node        *v1.Node
	allocatable resources
	maxPods     int64
	used        resources
	scored      resources // used as scoring sees it
	pods        map[types.UID]*placedPod
}

// placedPod is a pod that takes room on a node.
type placedPod struct {
	info    *podInfo
	node    string
	assumed bool // decided here, not yet seen from the API server
	evicted bool // in favour of another
}

func newState(storage *storage) *state {
	return &state{
		users:      map[string]int{},
		storage:    storage,
		nodes:      map[string]*nodeInfo{},
		placed:     map[types.UID]*placedPod{},
		repelling:  map[types.UID]*placedPod{},
		nominated:  map[types.UID]*placedPod{},
		namespaces: map[string]labels.Set{},
	}
}

func (s *state) namespaceLabels(name string) labels.Set { return s.namespaces[name] }

func (s *state) nodeFor(name string) *nodeInfo {
	n, ok := s.nodes[name]
	if !ok {
		n = &nodeInfo{name: name, pods: map[types.UID]*placedPod{}}
		s.nodes[name] = n
	}
	return n
}

// setNode adds or updates a node and tells whether pods that didn't fit
// anywhere may fit now.
func (s *state) setNode(node *v1.Node) bool {
	n := s.nodeFor(node.Name)
	old := n.node
	n.node = node
	if old != nil && sameNodeForScheduling(old, node) {
		return false
	}
	n.allocatable = newResources(node.Status.Allocatable)
	n.maxPods = node.Status.Allocatable.Pods().Value()
	if old == nil {
		at, _ := slices.BinarySearchFunc(s.candidates, node.Name, compareName)
		s.candidates = slices.Insert(s.candidates, at, n)
	}
	return true
}

func (s *state) removeNode(name string) {
	n, ok := s.nodes[name]
	if !ok {
		return
	}
	n.node = nil
	if at, found := slices.BinarySearchFunc(s.candidates, name, compareName); found {
		s.candidates = slices.Delete(s.candidates, at, at+1)
	}
	s.dropUnused(n)
}

func compareName(n *nodeInfo, name string) int { return strings.Compare(n.name, name) }

func (s *state) dropUnused(n *nodeInfo) {
	if n.node == nil && len(n.pods) == 0 {
		delete(s.nodes, n.name)
	}
}

// assume counts a pod on a node before the API server says that it's there.
func (s *state) assume(p *podInfo, node string) {
	s.put(&placedPod{info: p, node: node, assumed: true})
}

// confirm counts a pod that the API server says is on the node.
func (s *state) confirm(p *podInfo, node string) { s.put(&placedPod{info: p, node: node}) }

func (s *state) put(p *placedPod) {
	s.remove(p.info.uid)
	n := s.nodeFor(p.node)
	n.pods[p.info.uid] = p
	n.used = n.used.plus(p.info.requests, 1)
	n.scored = n.scored.plus(p.info.requests.scored(), 1)
	s.placed[p.info.uid] = p
	s.countClaims(p.info, 1)
	if len(p.info.antiAffinity) > 0 {
		s.repelling[p.info.uid] = p
	}
}

// usesClaim tells whether a placed pod uses the claim.
func (s *state) usesClaim(namespace, name string) bool { return s.users[namespace+"/"+name] > 0 }

func (s *state) countClaims(p *podInfo, by int) {
	for _, c := range p.claims {
		key := p.pod.Namespace + "/" + c.name
		if s.users[key] += by; s.users[key] == 0 {
			delete(s.users, key)
		}
	}
}

// replaceVersion notes a newer version of a placed pod that takes the same room.
func (p *placedPod) replaceVersion(pod *v1.Pod) {
	info := *p.info
	info.pod = pod
	p.info, p.assumed = &info, false
}

// forget takes an assumption back; a pod that was confirmed meanwhile stays.
func (s *state) forget(uid types.UID) {
	if p, ok := s.placed[uid]; ok && p.assumed {
		s.remove(uid)
	}
}

// remove takes a pod off its node and tells whether it was on one.
func (s *state) remove(uid types.UID) bool {
	p, ok := s.placed[uid]
	if !ok {
		return false
	}
	n := s.nodes[p.node]
	n.used = n.used.plus(p.info.requests, -1)
	n.scored = n.scored.plus(p.info.requests.scored(), -1)
	s.countClaims(p.info, -1)
	delete(n.pods, uid)
	delete(s.placed, uid)
	delete(s.repelling, uid)
	s.dropUnused(n)
	return true
}

// sameNodeForScheduling ignores what changes with every heartbeat.
func sameNodeForScheduling(a, b *v1.Node) bool {
	return a.Spec.Unschedulable == b.Spec.Unschedulable &&
		slices.EqualFunc(a.Spec.Taints, b.Spec.Taints, func(x, y v1.Taint) bool {
			return x.Key == y.Key && x.Value == y.Value && x.Effect == y.Effect
		}) &&
		labels.Equals(a.Labels, b.Labels) &&
		sameQuantities(a.Status.Allocatable, b.Status.Allocatable)
}
