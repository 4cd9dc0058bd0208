package binder

import (
	"fmt"
	"slices"
	"strings"
)

// diagnosis is why a pod fits no node. Its text is upstream's.
type diagnosis struct {
	nodes    int    // how many there are
	refused  string // why none was even looked at; "" if they were
	reasons  map[string]int
	eviction map[string]int // why evicting pods does not help, and on how many nodes
	cures    event          // what could make it untrue
	// individual tells that other pods of the same class may fit.
	individual bool
	// resolvable is the nodes where evicting pods may help.
	resolvable []*nodeInfo
	ineligible string // why the pod must not evict others, a sentence
	found      string // where it has done so
	quiet      bool   // nothing is wrong: what the pod waits for is under way
}

const (
	evictionNoHelp    = "Preemption is not helpful for scheduling"
	evictionNoVictims = "No preemption victims found for incoming pod"
)

// add notes why the pod doesn't fit one node.
func (d *diagnosis) add(n *nodeInfo, reasons []reason) {
	if d.reasons == nil {
		d.reasons, d.eviction = map[string]int{}, map[string]int{}
	}
	resolvable := true
	for _, r := range reasons {
		d.reasons[r.text]++
		d.cures |= r.cures
		d.individual = d.individual || r.individual
		resolvable = resolvable && r.resolvable
	}
	if resolvable {
		d.resolvable = append(d.resolvable, n)
	} else {
		d.eviction[evictionNoHelp]++
	}
}

// curedBy tells whether the event could make the pod fit.
func (d *diagnosis) curedBy(e event) bool {
	switch {
	case d.refused != "":
		return d.cures&e != 0 // mostly only a change of the pod itself helps
	case d.nodes == 0:
		return e&nodeChanged != 0
	}
	// A node more or less always counts; it is in every reason's cures.
	return d.cures&e != 0
}

func (d *diagnosis) String() string {
	if d.nodes == 0 && d.refused == "" {
		return "no nodes available to schedule pods"
	}
	head := fmt.Sprintf("0/%d nodes are available:", d.nodes)
	if d.refused != "" {
		return fmt.Sprintf("%s %s. preemption: %s %d %s.", head, d.refused, head, d.nodes, evictionNoHelp)
	}
	if d.ineligible != "" || d.found != "" {
		return fmt.Sprintf("%s %s. preemption: %s%s", head, histogram(d.reasons), d.ineligible, d.found)
	}
	return fmt.Sprintf("%s %s. preemption: %s %s.", head, histogram(d.reasons), head, histogram(d.eviction))
}

// histogram is "1 this, 2 that", sorted.
func histogram(counts map[string]int) string {
	lines := make([]string, 0, len(counts))
	for text, n := range counts {
		lines = append(lines, fmt.Sprintf("%d %s", n, text))
	}
	slices.Sort(lines)
	return strings.Join(lines, ", ")
}
