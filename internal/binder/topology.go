package binder

import (
	"fmt"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/sets"
)

// podTerm is a PodAffinityTerm, ready to be matched.
type podTerm struct {
	namespaces  sets.Set[string]
	nsSelector  labels.Selector
	selector    labels.Selector
	topologyKey string
}

type weightedTerm struct {
	podTerm
	weight int64 // negative: to be kept away from
}

// spreadRule is a TopologySpreadConstraint, ready to be matched.
type spreadRule struct {
	topologyKey    string
	selector       labels.Selector
	maxSkew        int
	minDomains     int
	hard           bool // DoNotSchedule
	ignoreAffinity bool // nodeAffinityPolicy: Ignore
	honorTaints    bool // nodeTaintsPolicy: Honor
	selfMatch      bool
}

// parseTopology fills in the rules that relate the pod to others.
func (p *podInfo) parseTopology() error {
	if a := p.pod.Spec.Affinity; a != nil {
		if err := p.parseAffinity(a); err != nil {
			return err
		}
	}
	for i := range p.pod.Spec.TopologySpreadConstraints {
		rule, err := newSpreadRule(&p.pod.Spec.TopologySpreadConstraints[i], p.pod)
		if err != nil {
			return fmt.Errorf("spec.topologySpreadConstraints[%d]: %w", i, err)
		}
		p.spread = append(p.spread, rule)
	}
	return nil
}

func (p *podInfo) parseAffinity(a *v1.Affinity) error {
	var err error
	if a.PodAffinity != nil {
		if p.affinity, err = newPodTerms(a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution, p.pod); err == nil {
			err = p.addPreferences(a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution, 1)
		}
		if err != nil {
			return fmt.Errorf("spec.affinity.podAffinity: %w", err)
		}
	}
	if a.PodAntiAffinity != nil {
		if p.antiAffinity, err = newPodTerms(a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution, p.pod); err == nil {
			err = p.addPreferences(a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution, -1)
		}
		if err != nil {
			return fmt.Errorf("spec.affinity.podAntiAffinity: %w", err)
		}
	}
	return nil
}

func (p *podInfo) addPreferences(terms []v1.WeightedPodAffinityTerm, sign int64) error {
	for i := range terms {
		term, err := newPodTerm(&terms[i].PodAffinityTerm, p.pod)
		if err != nil {
			return err
		}
		p.preferences = append(p.preferences, weightedTerm{term, sign * int64(terms[i].Weight)})
	}
	return nil
}

func newPodTerms(terms []v1.PodAffinityTerm, pod *v1.Pod) ([]podTerm, error) {
	out := make([]podTerm, 0, len(terms))
	for i := range terms {
		term, err := newPodTerm(&terms[i], pod)
		if err != nil {
			return nil, err
		}
		out = append(out, term)
	}
	return out, nil
}

// newPodTerm parses a term. matchLabelKeys need no thought: the API server has
// merged them into the selector (KEP-3633).
func newPodTerm(t *v1.PodAffinityTerm, pod *v1.Pod) (podTerm, error) {
	selector, err := selectorOf(t.LabelSelector)
	if err != nil {
		return podTerm{}, err
	}
	nsSelector, err := selectorOf(t.NamespaceSelector)
	if err != nil {
		return podTerm{}, err
	}
	namespaces := sets.New(t.Namespaces...)
	if len(t.Namespaces) == 0 && t.NamespaceSelector == nil {
		namespaces.Insert(pod.Namespace)
	}
	return podTerm{namespaces: namespaces, nsSelector: nsSelector, selector: selector, topologyKey: t.TopologyKey}, nil
}

func newSpreadRule(c *v1.TopologySpreadConstraint, pod *v1.Pod) (spreadRule, error) {
	selector, err := selectorOf(withLabelKeys(c.LabelSelector, c.MatchLabelKeys, pod.Labels))
	if err != nil {
		return spreadRule{}, err
	}
	r := spreadRule{
		topologyKey:    c.TopologyKey,
		selector:       selector,
		maxSkew:        int(c.MaxSkew),
		minDomains:     1,
		hard:           c.WhenUnsatisfiable == v1.DoNotSchedule,
		ignoreAffinity: c.NodeAffinityPolicy != nil && *c.NodeAffinityPolicy == v1.NodeInclusionPolicyIgnore,
		honorTaints:    c.NodeTaintsPolicy != nil && *c.NodeTaintsPolicy == v1.NodeInclusionPolicyHonor,
		selfMatch:      selector.Matches(labels.Set(pod.Labels)),
	}
	if c.MinDomains != nil {
		r.minDomains = int(*c.MinDomains)
	}
	return r, nil
}

// withLabelKeys adds the pod's own values of the keys to a selector (KEP-3243).
func withLabelKeys(s *metav1.LabelSelector, keys []string, own map[string]string) *metav1.LabelSelector {
	if s == nil || len(keys) == 0 {
		return s
	}
	s = s.DeepCopy()
	for _, key := range keys {
		if value, ok := own[key]; ok {
			s.MatchExpressions = append(s.MatchExpressions, metav1.LabelSelectorRequirement{
				Key: key, Operator: metav1.LabelSelectorOpIn, Values: []string{value},
			})
		}
	}
	return s
}

// matches tells whether the term speaks of the pod.
func (t *podTerm) matches(pod *v1.Pod, namespaceLabels func(string) labels.Set) bool {
	if !t.selector.Matches(labels.Set(pod.Labels)) {
		return false
	}
	return t.namespaces.Has(pod.Namespace) || t.nsSelector.Matches(namespaceLabels(pod.Namespace))
}

func matchesAll(terms []podTerm, pod *v1.Pod, namespaceLabels func(string) labels.Set) bool {
	for i := range terms {
		if !terms[i].matches(pod, namespaceLabels) {
			return false
		}
	}
	return true
}
