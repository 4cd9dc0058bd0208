package node

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A pod that was bound past the scheduler, to a node that it doesn't want, is refused.
func TestMisplaced(t *testing.T) {
	w := newWorld(t)
	selecting := func(key, value string) func(*v1.Pod) {
		return func(p *v1.Pod) { p.Spec.NodeSelector = map[string]string{key: value} }
	}
	requiring := func(op v1.NodeSelectorOperator) func(*v1.Pod) {
		return func(p *v1.Pod) {
			p.Spec.Affinity = &v1.Affinity{NodeAffinity: &v1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &v1.NodeSelector{
				NodeSelectorTerms: []v1.NodeSelectorTerm{{MatchExpressions: []v1.NodeSelectorRequirement{{Key: "disk", Operator: op}}}},
			}}}
		}
	}
	w.start(func(a *agent) {
		node := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1", Labels: map[string]string{"disk": "ssd"}}}
		if err := a.client.Tracker().Add(node); err != nil {
			t.Fatal(err)
		}
	})
	for name, tc := range map[string]struct {
		change func(*v1.Pod)
		want   v1.PodPhase
	}{
		"selects-it":       {selecting("disk", "ssd"), v1.PodRunning},
		"selects-another":  {selecting("disk", "tape"), v1.PodFailed},
		"requires-it":      {requiring(v1.NodeSelectorOpExists), v1.PodRunning},
		"requires-another": {requiring(v1.NodeSelectorOpDoesNotExist), v1.PodFailed},
	} {
		pod := makePod(name).with(tc.change).obj()
		w.api.create(pod)
		if got := w.waitPhase(pod, tc.want); tc.want == v1.PodFailed && got.Status.Reason != "NodeAffinity" {
			t.Errorf("%s: %s: %s", name, got.Status.Reason, got.Status.Message)
		}
	}
}
