package binder

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	v1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
)

// preemption is a node on which a pod has room once others have gone.
type preemption struct {
	node       *nodeInfo
	victims    []*placedPod // the most important first
	violations int          // of PodDisruptionBudgets
}

// preempt finds pods to evict in favour of one that place has found to fit
// nowhere, as upstream's DefaultPreemption plugin does. If there are none it
// completes the diagnosis and returns nil.
func (s *state) preempt(ctx context.Context, p *podInfo, d *diagnosis, budgets []*policyv1.PodDisruptionBudget) *preemption {
	var best *preemption
	for _, n := range d.resolvable {
		found, why := s.preemptOn(ctx, p, n, budgets)
		for _, text := range why {
			d.eviction[text]++
		}
		if found != nil && (best == nil || found.gentler(best)) {
			best = found
		}
	}
	return best
}

// gentler tells whether a node is to be preferred to another, which came before it.
func (a *preemption) gentler(b *preemption) bool {
	return cmp.Or(
		cmp.Compare(a.violations, b.violations),
		cmp.Compare(a.highest(), b.highest()),
		cmp.Compare(a.sum(), b.sum()),
		cmp.Compare(len(a.victims), len(b.victims)),
		b.earliest().Compare(a.earliest().Time),
	) < 0
}

func (a *preemption) highest() int32 {
	highest := a.victims[0].info.priority
	for _, v := range a.victims {
		highest = max(highest, v.info.priority)
	}
	return highest
}

// sum adds up the victims' priorities, shifted so that none is negative: more
// victims are never better.
func (a *preemption) sum() int64 {
	var sum int64
	for _, v := range a.victims {
		sum += int64(v.info.priority) + 1<<31
	}
	return sum
}

// earliest is when the first of the most important victims began.
func (a *preemption) earliest() *metav1.Time {
	var first *metav1.Time
	for _, v := range a.victims {
		if at := v.began(); v.info.priority == a.highest() && (first == nil || at.Before(first)) {
			first = at
		}
	}
	return first
}

// began is when the pod started, or was made.
func (p *placedPod) began() *metav1.Time {
	if at := p.info.pod.Status.StartTime; at != nil {
		return at
	}
	return &p.info.pod.CreationTimestamp
}

// preemptOn finds the least of the pods on one node without which the pod fits
// there, or says why there are none.
func (s *state) preemptOn(ctx context.Context, p *podInfo, n *nodeInfo, budgets []*policyv1.PodDisruptionBudget) (*preemption, []string) {
	var lower []*placedPod
	for _, other := range n.pods {
		if other.info.priority < p.priority {
			lower = append(lower, other)
		}
	}
	if len(lower) == 0 {
		return nil, []string{evictionNoVictims}
	}
	for _, other := range lower {
		s.remove(other.info.uid)
	}
	defer func() {
		for _, other := range lower {
			s.put(other)
		}
	}()
	if why := s.objections(ctx, p, n); len(why) > 0 {
		return nil, why
	}
	slices.SortFunc(lower, moreImportant)
	violating, others := byBudget(lower, budgets)
	found := &preemption{node: n}
	reprieve := func(pods []*placedPod) (gone int) {
		for _, other := range pods {
			s.put(other)
			if len(s.objections(ctx, p, n)) > 0 {
				s.remove(other.info.uid)
				found.victims = append(found.victims, other)
				gone++
			}
		}
		return gone
	}
	found.violations = reprieve(violating)
	reprieve(others)
	slices.SortFunc(found.victims, moreImportant)
	if len(found.victims) == 0 {
		// It fits after all: filters say why it didn't for all pods at once.
		return nil, []string{evictionNoVictims}
	}
	return found, nil
}

// objections is why a pod doesn't fit a node now.
func (s *state) objections(ctx context.Context, p *podInfo, n *nodeInfo) []string {
	a := s.newAttempt(ctx, p)
	var err error
	if a.storage, err = s.storage.storageOf(p); err != nil {
		return []string{err.Error()}
	}
	var texts []string
	for _, r := range s.objectionsWithNominated(a, n) {
		texts = append(texts, r.text)
	}
	return texts
}

// moreImportant orders pods, those first that are the last to be evicted: those
// not about to go anyway, of high priority, begun long ago.
func moreImportant(a, b *placedPod) int {
	going := func(p *placedPod) int {
		if p.evicted || p.info.pod.DeletionTimestamp != nil {
			return 1
		}
		return 0
	}
	return cmp.Or(
		cmp.Compare(going(a), going(b)),
		cmp.Compare(b.info.priority, a.info.priority),
		a.began().Compare(b.began().Time),
		cmp.Compare(a.info.uid, b.info.uid),
	)
}

// byBudget separates the pods, in their order, whose eviction would violate a
// PodDisruptionBudget if all of them were evicted.
func byBudget(pods []*placedPod, budgets []*policyv1.PodDisruptionBudget) (violating, others []*placedPod) {
	left := make([]int32, len(budgets))
	for i, b := range budgets {
		left[i] = b.Status.DisruptionsAllowed
	}
	for _, p := range pods {
		violates := false
		for i, b := range budgets {
			if !covers(b, p.info.pod) {
				continue
			}
			left[i]--
			violates = violates || left[i] < 0
		}
		if violates {
			violating = append(violating, p)
		} else {
			others = append(others, p)
		}
	}
	return violating, others
}

// covers tells whether a budget counts the pod's eviction: not, if it has already.
func covers(b *policyv1.PodDisruptionBudget, pod *v1.Pod) bool {
	if b.Namespace != pod.Namespace || len(pod.Labels) == 0 {
		return false
	}
	selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
	if err != nil || selector.Empty() || !selector.Matches(labels.Set(pod.Labels)) {
		return false
	}
	_, counted := b.Status.DisruptedPods[pod.Name]
	return !counted
}

// ineligible says why the pod must not evict others now; "" if it may.
func (s *state) ineligible(w *waiting, d *diagnosis) string {
	if policy := w.pod.Spec.PreemptionPolicy; policy != nil && *policy == v1.PreemptNever {
		return "not eligible due to preemptionPolicy=Never."
	}
	nomination, ok := s.nominated[w.info.uid]
	if !ok {
		return ""
	}
	n := s.nodes[nomination.node]
	if n == nil || n.node == nil || !slices.Contains(d.resolvable, n) {
		return "" // it is lost: others may do
	}
	for uid, other := range n.pods {
		if other.info.priority < w.info.priority && (w.victims[uid] || terminatesByPreemption(other.info.pod)) {
			return "not eligible due to a terminating pod on the nominated node."
		}
	}
	return ""
}

func terminatesByPreemption(pod *v1.Pod) bool {
	_, c := podutil.GetPodCondition(&pod.Status, v1.DisruptionTarget)
	return pod.DeletionTimestamp != nil && c != nil && c.Status == v1.ConditionTrue && c.Reason == v1.PodReasonPreemptionByScheduler
}

// nominate keeps room on a node for a pod whose victims are about to leave it:
// pods of lower priority don't get it.
func (s *state) nominate(p *podInfo, node string) {
	s.nominated[p.uid] = &placedPod{info: p, node: node}
}

// renominate notes a newer version of a pod, and tells whether room is kept for it.
func (s *state) renominate(p *podInfo) bool {
	n, ok := s.nominated[p.uid]
	if ok {
		s.nominate(p, n.node)
	}
	return ok
}

// objectionsWithNominated is why the pod doesn't fit the node, with the pods that
// come before it there or without.
func (s *state) objectionsWithNominated(a *attempt, n *nodeInfo) []reason {
	if reasons := a.objections(n); len(reasons) > 0 {
		return reasons
	}
	var before []*placedPod
	for uid, p := range s.nominated {
		if _, placed := s.placed[uid]; p.node == n.name && p.info.priority >= a.priority && uid != a.uid && !placed {
			before = append(before, p)
		}
	}
	if len(before) == 0 {
		return nil
	}
	for _, p := range before {
		s.put(p)
	}
	defer func() {
		for _, p := range before {
			s.remove(p.info.uid)
		}
	}()
	with := *a
	if with.needsTopology || len(s.repelling) > 0 {
		with.topology = s.countTopology(&with)
	}
	return with.objections(n)
}

func (p *preemption) String() string {
	return fmt.Sprintf("found a potential placement for pod on node %s, preempting %d victims", p.node.name, len(p.victims))
}
