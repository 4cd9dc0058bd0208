package binder

import (
	"context"
	"fmt"
	"maps"
	"slices"

	v1 "k8s.io/api/core/v1"
	corev1helpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/klog/v2"
)

// event is a set of things that happen in a cluster.
type event uint8

const (
	nodeChanged event = 1 << iota // added, or its labels, taints, capacity changed
	podLeft                       // a pod's room is free again, or its labels changed
	podCame                       // a pod was bound
	namespaceChanged
	storageChanged // a claim, volume or StorageClass
)

// reason is why a pod doesn't fit a node.
type reason struct {
	text       string
	resolvable bool  // evicting other pods could help
	cures      event // what could make it untrue
	individual bool  // other pods of the class may not be concerned
}

// attempt is one pod's look at the cluster.
type attempt struct {
	*podInfo
	state    *state
	topology *topologyCounts // nil if nobody's rules relate the pod to others
	storage  *podStorage
	logger   klog.Logger
}

// filters run in upstream's order; the first that objects to a node is the one
// that is reported for it.
var filters = []func(*attempt, *nodeInfo) []reason{
	filterUnschedulable,
	filterTaints,
	filterNodeAffinity,
	filterPorts,
	filterResources,
	filterExclusive,
	filterVolumes,
	filterSpread,
	filterPodAffinity,
}

// place finds the best node for a pod, or says why there is none.
func (s *state) place(ctx context.Context, p *podInfo) (*nodeInfo, *diagnosis) {
	d := &diagnosis{nodes: len(s.candidates)}
	if why := unsupported(p.pod); why != "" {
		d.refused = why
		return nil, d
	}
	if p.malformed != nil {
		d.refused = p.malformed.Error()
		return nil, d
	}
	a := s.newAttempt(ctx, p)
	var err error
	if a.storage, err = s.storage.storageOf(p); err != nil {
		d.refused, d.cures = err.Error(), storageChanged
		return nil, d
	}
	var fitting []*nodeInfo
	for _, n := range s.candidates {
		if reasons := s.objectionsWithNominated(a, n); len(reasons) > 0 {
			d.add(n, reasons)
		} else {
			fitting = append(fitting, n)
		}
	}
	if len(fitting) == 0 {
		return nil, d
	}
	return a.best(fitting), nil
}

func (s *state) newAttempt(ctx context.Context, p *podInfo) *attempt {
	a := &attempt{podInfo: p, state: s, logger: klog.FromContext(ctx)}
	if p.needsTopology || len(s.repelling) > 0 {
		a.topology = s.countTopology(a)
	}
	return a
}

func (a *attempt) objections(n *nodeInfo) []reason {
	for _, filter := range filters {
		if reasons := filter(a, n); len(reasons) > 0 {
			return reasons
		}
	}
	return nil
}

// unsupported names what the pod asks for that this scheduler can't weigh. Such
// a pod must wait with a message rather than be bound as if it hadn't asked.
func unsupported(pod *v1.Pod) string {
	switch {
	case len(pod.Spec.ResourceClaims) > 0:
		return "spec.resourceClaims is not supported by errand's scheduler: it can't allocate devices"
	case pod.Spec.SchedulingGroup != nil:
		return "spec.schedulingGroup is not supported by errand's scheduler: it binds pods one by one"
	}
	return ""
}

func filterUnschedulable(a *attempt, n *nodeInfo) []reason {
	taint := v1.Taint{Key: v1.TaintNodeUnschedulable, Effect: v1.TaintEffectNoSchedule}
	if !n.node.Spec.Unschedulable || a.tolerates(&taint) {
		return nil
	}
	return []reason{{text: "node(s) were unschedulable", cures: nodeChanged}}
}

func (a *attempt) tolerates(taint *v1.Taint) bool {
	return corev1helpers.TolerationsTolerateTaint(a.logger, a.pod.Spec.Tolerations, taint, true)
}

func filterTaints(a *attempt, n *nodeInfo) []reason {
	if !a.repelledByTaint(n) {
		return nil
	}
	return []reason{{text: "node(s) had untolerated taint(s)", cures: nodeChanged}}
}

func (a *attempt) repelledByTaint(n *nodeInfo) bool {
	for i := range n.node.Spec.Taints {
		taint := &n.node.Spec.Taints[i]
		hard := taint.Effect == v1.TaintEffectNoSchedule || taint.Effect == v1.TaintEffectNoExecute
		if hard && !a.tolerates(taint) {
			return true
		}
	}
	return false
}

func filterNodeAffinity(a *attempt, n *nodeInfo) []reason {
	if a.allowsNode(n) {
		return nil
	}
	return []reason{{text: "node(s) didn't match Pod's node affinity/selector", cures: nodeChanged}}
}

// allowsNode applies nodeSelector and required nodeAffinity. As upstream, a term
// that can't be parsed matches nothing.
func (a *attempt) allowsNode(n *nodeInfo) bool {
	match, err := a.nodes.Match(n.node)
	return match && err == nil
}

func filterPorts(a *attempt, n *nodeInfo) []reason {
	if len(a.ports) == 0 {
		return nil
	}
	for _, other := range n.pods {
		for _, taken := range other.info.ports {
			if slices.ContainsFunc(a.ports, taken.conflicts) {
				return []reason{{
					text: "node(s) didn't have free ports for the requested pod ports", resolvable: true, cures: nodeChanged | podLeft,
				}}
			}
		}
	}
	return nil
}

// filterResources lists everything that the node lacks.
func filterResources(a *attempt, n *nodeInfo) []reason {
	var out []reason
	lacks := func(what string, want, used, capacity int64) {
		if want > 0 && want > capacity-used {
			out = append(out, reason{
				text: "Insufficient " + what, resolvable: want <= capacity, cures: nodeChanged | podLeft,
			})
		}
	}
	if int64(len(n.pods)) >= n.maxPods {
		out = append(out, reason{text: "Too many pods", resolvable: true, cures: nodeChanged | podLeft})
	}
	lacks("cpu", a.requests.cpu, n.used.cpu, n.allocatable.cpu)
	lacks("memory", a.requests.memory, n.used.memory, n.allocatable.memory)
	lacks("ephemeral-storage", a.requests.storage, n.used.storage, n.allocatable.storage)
	for _, name := range slices.Sorted(maps.Keys(a.requests.scalar)) {
		lacks(fmt.Sprint(name), a.requests.scalar[name], n.used.scalar[name], n.allocatable.scalar[name])
	}
	return out
}
