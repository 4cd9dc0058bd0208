package binder

import (
	"math"

	v1 "k8s.io/api/core/v1"
)

// domain is a set of nodes: those whose label has this value.
type domain struct{ key, value string }

// topologyCounts is how many placed pods each domain holds that matter to one
// pod, by the rule they matter to.
type topologyCounts struct {
	affinity    map[domain]int // pods that match all affinity terms
	anti        map[domain]int // pods that the pod keeps away from
	repelled    map[domain]int // pods that keep away from the pod
	preferred   map[domain]int64
	spread      []map[string]int // by rule: value → matching pods, for each domain that counts
	selfSuffice bool             // the pod may be the first of those it wants to join
}

// countTopology looks at every placed pod once. Pods whose node isn't known
// are in no domain.
func (s *state) countTopology(a *attempt) *topologyCounts {
	t := &topologyCounts{
		affinity: map[domain]int{}, anti: map[domain]int{}, repelled: map[domain]int{}, preferred: map[domain]int64{},
	}
	for _, r := range s.repelling {
		node := s.nodes[r.node].node
		for i := range r.info.antiAffinity {
			if term := &r.info.antiAffinity[i]; term.matches(a.pod, s.namespaceLabels) {
				count(t.repelled, node, term.topologyKey, 1)
			}
		}
	}
	if !a.needsTopology {
		return t
	}
	for _, p := range s.placed {
		t.addPod(a, p.info.pod, s.nodes[p.node].node)
	}
	t.selfSuffice = len(t.affinity) == 0 && matchesAll(a.affinity, a.pod, s.namespaceLabels)
	t.spread = s.countSpread(a)
	return t
}

func (t *topologyCounts) addPod(a *attempt, other *v1.Pod, node *v1.Node) {
	if len(a.affinity) > 0 && matchesAll(a.affinity, other, a.state.namespaceLabels) {
		for i := range a.affinity {
			count(t.affinity, node, a.affinity[i].topologyKey, 1)
		}
	}
	for i := range a.antiAffinity {
		if term := &a.antiAffinity[i]; term.matches(other, a.state.namespaceLabels) {
			count(t.anti, node, term.topologyKey, 1)
		}
	}
	for i := range a.preferences {
		if term := &a.preferences[i]; term.matches(other, a.state.namespaceLabels) {
			count(t.preferred, node, term.topologyKey, term.weight)
		}
	}
}

func count[N int | int64](counts map[domain]N, node *v1.Node, key string, n N) {
	if node == nil {
		return
	}
	if value, ok := node.Labels[key]; ok {
		counts[domain{key, value}] += n
	}
}

// filterPodAffinity applies the pod's required affinity and anti-affinity, then
// other pods' anti-affinity towards it.
func filterPodAffinity(a *attempt, n *nodeInfo) []reason {
	t := a.topology
	if t == nil {
		return nil
	}
	if !t.joins(a, n.node) {
		return []reason{{text: "node(s) didn't match pod affinity rules", cures: nodeChanged | podCame | podLeft | namespaceChanged}}
	}
	for i := range a.antiAffinity {
		key := a.antiAffinity[i].topologyKey
		if value, ok := n.node.Labels[key]; ok && t.anti[domain{key, value}] > 0 {
			return []reason{{
				text: "node(s) didn't match pod anti-affinity rules", resolvable: true, cures: nodeChanged | podLeft | namespaceChanged,
			}}
		}
	}
	for d := range t.repelled {
		if value, ok := n.node.Labels[d.key]; ok && value == d.value {
			return []reason{{
				text: "node(s) didn't satisfy existing pods anti-affinity rules", resolvable: true,
				cures: nodeChanged | podLeft | namespaceChanged, individual: true,
			}}
		}
	}
	return nil
}

// joins tells whether the node is in a domain with a pod that all of the pod's
// affinity terms want, or whether the pod may start such a group itself.
func (t *topologyCounts) joins(a *attempt, node *v1.Node) bool {
	found := true
	for i := range a.affinity {
		key := a.affinity[i].topologyKey
		value, ok := node.Labels[key]
		if !ok {
			return false
		}
		found = found && t.affinity[domain{key, value}] > 0
	}
	return found || t.selfSuffice
}

// countSpread counts, for each of the pod's spread rules, the pods that it
// speaks of in each domain that has a node the rule counts.
func (s *state) countSpread(a *attempt) []map[string]int {
	counts := make([]map[string]int, len(a.spread))
	for i := range a.spread {
		rule := &a.spread[i]
		counts[i] = map[string]int{}
		for _, n := range s.candidates {
			value, ok := n.node.Labels[rule.topologyKey]
			if !ok || !rule.countsNode(a, n) {
				continue
			}
			counts[i][value] += rule.podsOn(a, n)
		}
	}
	return counts
}

// countsNode applies the rule's node inclusion policies (KEP-3094). As upstream,
// a node counts only if it has the labels of all hard rules.
func (r *spreadRule) countsNode(a *attempt, n *nodeInfo) bool {
	for i := range a.spread {
		if _, ok := n.node.Labels[a.spread[i].topologyKey]; !ok && a.spread[i].hard && r.hard {
			return false
		}
	}
	if !r.ignoreAffinity && !a.allowsNode(n) {
		return false
	}
	return !r.honorTaints || !a.repelledByTaint(n)
}

func (r *spreadRule) podsOn(a *attempt, n *nodeInfo) int {
	matching := 0
	for _, p := range n.pods {
		other := p.info.pod
		if other.Namespace == a.pod.Namespace && other.DeletionTimestamp == nil && r.selector.Matches(labelSet(other)) {
			matching++
		}
	}
	return matching
}

// filterSpread refuses nodes in whose domain the pod would tip a hard rule.
func filterSpread(a *attempt, n *nodeInfo) []reason {
	const (
		tipped  = "node(s) didn't match pod topology spread constraints"
		missing = tipped + " (missing required label)"
	)
	for i := range a.spread {
		rule := &a.spread[i]
		if !rule.hard {
			continue
		}
		value, ok := n.node.Labels[rule.topologyKey]
		if !ok {
			return []reason{{text: missing, cures: nodeChanged}}
		}
		if rule.skew(a.topology.spread[i], value) > rule.maxSkew {
			return []reason{{text: tipped, resolvable: true, cures: nodeChanged | podLeft | podCame}}
		}
	}
	return nil
}

// skew is how far ahead of the emptiest domain the given one would be with the
// pod in it.
func (r *spreadRule) skew(counts map[string]int, value string) int {
	emptiest := 0
	if len(counts) >= r.minDomains {
		emptiest = math.MaxInt
		for _, c := range counts {
			emptiest = min(emptiest, c)
		}
	}
	skew := counts[value] - emptiest
	if r.selfMatch {
		skew++
	}
	return skew
}
