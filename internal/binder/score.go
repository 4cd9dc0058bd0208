package binder

import (
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// Weights of what speaks for a node, as in upstream's default profile.
const (
	fullScore      = 100
	weightFree     = 1
	weightTaints   = 3
	weightAffinity = 2
)

func labelSet(pod *v1.Pod) labels.Set { return labels.Set(pod.Labels) }

// best is the node of those the pod fits that has most left, taking soft
// wishes into account: preferred affinities, PreferNoSchedule taints and
// ScheduleAnyway spreading. Of equals it is the first by name.
func (a *attempt) best(fitting []*nodeInfo) *nodeInfo {
	if len(fitting) == 1 {
		return fitting[0]
	}
	wishes := a.normalisedWishes(fitting)
	best, bestScore := fitting[0], int64(-1)
	for i, n := range fitting {
		score := weightFree*a.freeAfter(n) + wishes[i]
		if score > bestScore {
			best, bestScore = n, score
		}
	}
	return best
}

// freeAfter is which share of CPU and memory the node has left with the pod on
// it, 0 to fullScore.
func (a *attempt) freeAfter(n *nodeInfo) int64 {
	share := func(used, want, capacity int64) int64 {
		if capacity <= 0 || used+want > capacity {
			return 0
		}
		return (capacity - used - want) * fullScore / capacity
	}
	want := a.requests.scored()
	return (share(n.scored.cpu, want.cpu, n.allocatable.cpu) +
		share(n.scored.memory, want.memory, n.allocatable.memory)) / 2
}

// normalisedWishes is, per node, how well it meets the pod's soft wishes. Each
// kind of wish is scaled to 0…fullScore over the nodes and weighted.
func (a *attempt) normalisedWishes(nodes []*nodeInfo) []int64 {
	sum := make([]int64, len(nodes))
	add := func(weight int64, raw func(*nodeInfo) int64) {
		for i, v := range normalise(nodes, raw) {
			sum[i] += weight * v
		}
	}
	if terms := a.preferredNodes(); terms != nil {
		add(weightAffinity, func(n *nodeInfo) int64 { return terms.Score(n.node) })
	}
	add(weightTaints, func(n *nodeInfo) int64 { return -a.softTaints(n) })
	if a.topology != nil && len(a.preferences) > 0 {
		add(weightAffinity, a.preferredPods)
	}
	for i := range a.spread {
		if rule := &a.spread[i]; !rule.hard {
			add(weightAffinity, func(n *nodeInfo) int64 {
				return -int64(a.topology.spread[i][n.node.Labels[rule.topologyKey]])
			})
		}
	}
	return sum
}

func normalise(nodes []*nodeInfo, raw func(*nodeInfo) int64) []int64 {
	out := make([]int64, len(nodes))
	lo, hi := int64(0), int64(0)
	for i, n := range nodes {
		out[i] = raw(n)
		if i == 0 {
			lo, hi = out[i], out[i]
		}
		lo, hi = min(lo, out[i]), max(hi, out[i])
	}
	for i := range out {
		if hi == lo {
			out[i] = 0
		} else {
			out[i] = (out[i] - lo) * fullScore / (hi - lo)
		}
	}
	return out
}

// preferredNodes is the pod's preferred nodeAffinity, nil if it has none. As
// upstream, terms that can't be parsed count for nothing.
func (a *attempt) preferredNodes() *nodeaffinity.PreferredSchedulingTerms {
	affinity := a.pod.Spec.Affinity
	if affinity == nil || affinity.NodeAffinity == nil {
		return nil
	}
	terms, err := nodeaffinity.NewPreferredSchedulingTerms(affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
	if err != nil {
		return nil
	}
	return terms
}

func (a *attempt) softTaints(n *nodeInfo) int64 {
	var untolerated int64
	for i := range n.node.Spec.Taints {
		taint := &n.node.Spec.Taints[i]
		if taint.Effect == v1.TaintEffectPreferNoSchedule && !a.tolerates(taint) {
			untolerated++
		}
	}
	return untolerated
}

func (a *attempt) preferredPods(n *nodeInfo) int64 {
	var score int64
	seen := map[string]bool{}
	for i := range a.preferences {
		key := a.preferences[i].topologyKey
		if value, ok := n.node.Labels[key]; ok && !seen[key] {
			seen[key] = true
			score += a.topology.preferred[domain{key, value}]
		}
	}
	return score
}
