package binder

import (
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

const (
	noVictims = " preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
	noHelp    = " preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
)

func TestPlaceOnOneNode(t *testing.T) {
	node := makeNode("n")
	always := v1.ContainerRestartPolicyAlways
	for _, tc := range []struct {
		name  string
		state []any
		pod   *podBuilder
		want  string // the diagnosis; "" = it fits
	}{
		{"an empty pod", []any{node}, makePod("p"), ""},
		{"no nodes", nil, makePod("p"), "no nodes available to schedule pods"},
		{"all of the node", []any{node}, makePod("p").requests("cpu", "2", "memory", "4Gi"), ""},
		{
			"more than the node has", []any{node}, makePod("p").requests("cpu", "3"),
			"0/1 nodes are available: 1 Insufficient cpu." + noHelp,
		},
		{
			"more than is left", []any{node, makePod("q").requests("cpu", "1500m").on("n")}, makePod("p").requests("cpu", "1"),
			"0/1 nodes are available: 1 Insufficient cpu." + noVictims,
		},
		{
			"several things lacking", []any{node, makePod("q").requests("cpu", "2", "memory", "4Gi", "ephemeral-storage", "10Gi").on("n")},
			makePod("p").requests("cpu", "1", "memory", "1", "ephemeral-storage", "1"),
			"0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient ephemeral-storage, 1 Insufficient memory." + noVictims,
		},
		{
			"an unknown extended resource", []any{node}, makePod("p").requests("example.com/gpu", "1"),
			"0/1 nodes are available: 1 Insufficient example.com/gpu." + noHelp,
		},
		{
			"huge pages", []any{makeNode("n", "pods", "1", "hugepages-2Mi", "4Mi")},
			makePod("p").requests("hugepages-2Mi", "4Mi"), "",
		},
		{
			"a pod without requests on a full node", []any{node, makePod("q").requests("cpu", "2").on("n")}, makePod("p"), "",
		},
		{
			"too many pods", []any{makeNode("n", "pods", "1"), makePod("q").on("n")}, makePod("p"),
			"0/1 nodes are available: 1 Too many pods." + noVictims,
		},
		{
			"init containers count by their maximum, sidecars and overhead on top", []any{node},
			makePod("p").requests("cpu", "500m").with(func(p *v1.Pod) {
				p.Spec.InitContainers = []v1.Container{
					{Name: "side", RestartPolicy: &always, Resources: v1.ResourceRequirements{Requests: quantities("cpu", "1")}},
					{Name: "init", Resources: v1.ResourceRequirements{Requests: quantities("cpu", "900m")}},
				}
				p.Spec.Overhead = quantities("cpu", "101m")
			}),
			"0/1 nodes are available: 1 Insufficient cpu." + noHelp,
		},
		{
			"pod-level requests go before containers'", []any{node},
			makePod("p").requests("cpu", "1").with(func(p *v1.Pod) {
				p.Spec.Resources = &v1.ResourceRequirements{Requests: quantities("cpu", "2500m")}
			}),
			"0/1 nodes are available: 1 Insufficient cpu." + noHelp,
		},
		{
			"cordoned", []any{changedNode(node, func(n *v1.Node) { n.Spec.Unschedulable = true })}, makePod("p"),
			"0/1 nodes are available: 1 node(s) were unschedulable." + noHelp,
		},
		{
			"cordoned but tolerated", []any{changedNode(node, func(n *v1.Node) { n.Spec.Unschedulable = true })},
			makePod("p").tolerates(v1.TaintNodeUnschedulable), "",
		},
		{
			"a taint", []any{tainted(node, v1.TaintNodeNotReady, v1.TaintEffectNoSchedule)}, makePod("p"),
			"0/1 nodes are available: 1 node(s) had untolerated taint(s)." + noHelp,
		},
		{"a tolerated taint", []any{tainted(node, "k", v1.TaintEffectNoExecute)}, makePod("p").tolerates("k"), ""},
		{"a soft taint", []any{tainted(node, "k", v1.TaintEffectPreferNoSchedule)}, makePod("p"), ""},
		{
			"a node selector", []any{node}, makePod("p").selector("disk", "ssd"),
			"0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector." + noHelp,
		},
		{"a node selector that matches", []any{labelled(node, "disk", "ssd")}, makePod("p").selector("disk", "ssd"), ""},
		{
			"required node affinity", []any{labelled(node, "cores", "4")},
			makePod("p").with(requireNode(v1.NodeSelectorRequirement{Key: "cores", Operator: v1.NodeSelectorOpGt, Values: []string{"4"}})),
			"0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector." + noHelp,
		},
		{
			"a host port that is taken", []any{node, makePod("q").hostPort(80, "").on("n")}, makePod("p").hostPort(80, "10.0.0.1"),
			"0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports." + noVictims,
		},
		{"a host port of another address", []any{node, makePod("q").hostPort(80, "10.0.0.2").on("n")}, makePod("p").hostPort(80, "10.0.0.1"), ""},
		{
			"preemption forbidden", []any{node}, makePod("p").requests("cpu", "3").with(func(p *v1.Pod) {
				p.Spec.PreemptionPolicy = ptr.To(v1.PreemptNever)
			}),
			"0/1 nodes are available: 1 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never.",
		},
		{
			"pods of lower priority in the way", []any{node, makePod("q").requests("cpu", "2").on("n")}, makePod("p").requests("cpu", "1").priority(5),
			"0/1 nodes are available: 1 Insufficient cpu. preemption: found a potential placement for pod on node n, preempting 1 victims",
		},
		{
			"resource claims", []any{node}, makePod("p").with(func(p *v1.Pod) { p.Spec.ResourceClaims = []v1.PodResourceClaim{{Name: "gpu"}} }),
			"0/1 nodes are available: spec.resourceClaims is not supported by errand's scheduler: it can't allocate devices." + noHelp,
		},
		{
			"a group", []any{node}, makePod("p").with(func(p *v1.Pod) { p.Spec.SchedulingGroup = &v1.PodSchedulingGroup{} }),
			"0/1 nodes are available: spec.schedulingGroup is not supported by errand's scheduler: it binds pods one by one." + noHelp,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n, d := stateWith(tc.state...).decide(t.Context(), tc.pod.obj())
			got := ""
			if n == nil {
				got = d.String()
			}
			if got != tc.want {
				t.Errorf("%q\nwant %q", got, tc.want)
			}
		})
	}
}

func requireNode(r v1.NodeSelectorRequirement) func(*v1.Pod) {
	return func(p *v1.Pod) {
		p.Spec.Affinity = &v1.Affinity{NodeAffinity: &v1.NodeAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: &v1.NodeSelector{
				NodeSelectorTerms: []v1.NodeSelectorTerm{{MatchExpressions: []v1.NodeSelectorRequirement{r}}},
			},
		}}
	}
}

func TestReasonsAreCountedOverNodes(t *testing.T) {
	s := stateWith(
		makeNode("a"), makeNode("b", "cpu", "1", "pods", "1"), tainted(makeNode("c"), "k", v1.TaintEffectNoSchedule),
		makePod("q").requests("cpu", "2").on("a"), makePod("r").on("b"),
	)
	_, d := s.decide(t.Context(), makePod("p").requests("cpu", "1500m").obj())
	want := "0/3 nodes are available: 1 Too many pods, 1 node(s) had untolerated taint(s), 2 Insufficient cpu. " +
		"preemption: 0/3 nodes are available: 1 No preemption victims found for incoming pod, 2 Preemption is not helpful for scheduling."
	if d.String() != want {
		t.Errorf("%q\nwant %q", d, want)
	}
}

func TestTopologyRules(t *testing.T) {
	const zone = "zone"
	a, b, c := labelled(makeNode("a"), zone, "1"), labelled(makeNode("b"), zone, "2"), labelled(makeNode("c"), zone, "2")
	bare := makeNode("bare")
	other := makePod("other").labels("app", "x").on("a")
	elsewhere := makePod("elsewhere").labels("app", "x").on("a").with(func(p *v1.Pod) { p.Namespace = "team" })
	for _, tc := range []struct {
		name  string
		state []any
		pod   *podBuilder
		want  string // node names; or the diagnosis up to the preemption part
	}{
		{"affinity follows its zone", []any{a, b, makePod("o").labels("app", "x").on("b")}, makePod("p").near(zone, "app", "x"), "b"},
		{"affinity to nobody", []any{a, b}, makePod("p").near(zone, "app", "x"), "0/2 nodes are available: 2 node(s) didn't match pod affinity rules."},
		{"the first of a group that wants itself", []any{a}, makePod("p").labels("app", "x").near(zone, "app", "x"), "a"},
		{"the first of a group, without the label", []any{bare}, makePod("p").labels("app", "x").near(zone, "app", "x"), "0/1 nodes are available: 1 node(s) didn't match pod affinity rules."},
		{"another namespace's pods don't count", []any{a, elsewhere}, makePod("p").near(zone, "app", "x"), "0/1 nodes are available: 1 node(s) didn't match pod affinity rules."},
		{"anti-affinity", []any{a, b, other}, makePod("p").awayFrom(zone, "app", "x"), "b"},
		{"anti-affinity on the only node", []any{a, other}, makePod("p").awayFrom(zone, "app", "x"), "0/1 nodes are available: 1 node(s) didn't match pod anti-affinity rules."},
		{"anti-affinity without the label", []any{bare, other}, makePod("p").awayFrom(zone, "app", "x"), "bare"},
		{
			"an existing pod's anti-affinity", []any{a, makePod("o").awayFrom(zone, "app", "y").on("a")}, makePod("p").labels("app", "y"),
			"0/1 nodes are available: 1 node(s) didn't satisfy existing pods anti-affinity rules.",
		},
		{"spread fills the emptier zone", []any{a, b, other}, makePod("p").labels("app", "x").spread(zone, 1, v1.DoNotSchedule, "app", "x"), "b"},
		{
			"spread with one zone never tips", []any{a, other}, makePod("p").labels("app", "x").spread(zone, 1, v1.DoNotSchedule, "app", "x"), "a",
		},
		{
			"spread over more domains than there are", []any{a, other},
			makePod("p").labels("app", "x").spread(zone, 1, v1.DoNotSchedule, "app", "x").with(func(p *v1.Pod) {
				p.Spec.TopologySpreadConstraints[0].MinDomains = ptr.To[int32](2)
			}),
			"0/1 nodes are available: 1 node(s) didn't match pod topology spread constraints.",
		},
		{
			"spread without the label", []any{bare}, makePod("p").spread(zone, 1, v1.DoNotSchedule, "app", "x"),
			"0/1 nodes are available: 1 node(s) didn't match pod topology spread constraints (missing required label).",
		},
		{
			"spread counts a tainted zone unless told to honour taints", []any{a, tainted(b, "k", v1.TaintEffectNoSchedule), other},
			makePod("p").labels("app", "x").spread(zone, 1, v1.DoNotSchedule, "app", "x"),
			"0/2 nodes are available: 1 node(s) didn't match pod topology spread constraints, 1 node(s) had untolerated taint(s).",
		},
		{
			"spread honouring taints", []any{a, tainted(b, "k", v1.TaintEffectNoSchedule), other},
			makePod("p").labels("app", "x").spread(zone, 1, v1.DoNotSchedule, "app", "x").with(func(p *v1.Pod) {
				p.Spec.TopologySpreadConstraints[0].NodeTaintsPolicy = ptr.To(v1.NodeInclusionPolicyHonor)
			}), "a",
		},
		{
			"spread by matchLabelKeys", []any{a, labelled(makeNode("full", "pods", "0"), zone, "2"), makePod("o").labels("app", "x", "rev", "1").on("a")},
			makePod("p").labels("app", "x", "rev", "2").spread(zone, 1, v1.DoNotSchedule, "app", "x").with(func(p *v1.Pod) {
				p.Spec.TopologySpreadConstraints[0].MatchLabelKeys = []string{"rev"}
			}), "a",
		},
		{"a soft spread prefers", []any{a, b, other}, makePod("p").labels("app", "x").spread(zone, 1, v1.ScheduleAnyway, "app", "x"), "b"},
		{"preferred anti-affinity", []any{a, b, other}, makePod("p").with(preferPods(zone, "app", "x", -1)), "b"},
		{"preferred affinity", []any{a, b, c, makePod("o").labels("app", "x").on("c")}, makePod("p").with(preferPods(zone, "app", "x", 1)), "b"},
		{"a soft taint is avoided", []any{tainted(a, "k", v1.TaintEffectPreferNoSchedule), b}, makePod("p"), "b"},
		{"the least allocated", []any{a, b, makePod("q").requests("cpu", "1").on("a")}, makePod("p"), "b"},
		{"pods without requests spread too", []any{a, b, makePod("q").on("a")}, makePod("p"), "b"},
		{"equals go by name", []any{b, a}, makePod("p"), "a"},
		{
			"a selector that can't be parsed", []any{a},
			makePod("p").near(zone, "app", "not a value!"),
			`0/1 nodes are available: spec.affinity.podAffinity: `,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n, d := stateWith(tc.state...).decide(t.Context(), tc.pod.obj())
			switch {
			case n != nil && n.name != tc.want:
				t.Errorf("on %s, want %s", n.name, tc.want)
			case n == nil && !strings.HasPrefix(d.String(), tc.want):
				t.Errorf("%q\nwant %q…", d, tc.want)
			}
		})
	}
}

func preferPods(key, label, value string, sign int) func(*v1.Pod) {
	terms := []v1.WeightedPodAffinityTerm{{Weight: 10, PodAffinityTerm: term(key, []string{label, value})}}
	return func(p *v1.Pod) {
		if sign > 0 {
			p.Spec.Affinity = &v1.Affinity{PodAffinity: &v1.PodAffinity{PreferredDuringSchedulingIgnoredDuringExecution: terms}}
		} else {
			p.Spec.Affinity = &v1.Affinity{PodAntiAffinity: &v1.PodAntiAffinity{PreferredDuringSchedulingIgnoredDuringExecution: terms}}
		}
	}
}

func TestNamespaceSelector(t *testing.T) {
	s := stateWith(labelled(makeNode("a"), "zone", "1"),
		makePod("o").labels("app", "x").on("a").with(func(p *v1.Pod) { p.Namespace = "team" }))
	pod := makePod("p").near("zone", "app", "x").obj()
	pod.Spec.Affinity.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution[0].NamespaceSelector = &metav1.LabelSelector{
		MatchLabels: map[string]string{"kind": "batch"},
	}
	if n, _ := s.place(t.Context(), newPodInfo(pod)); n != nil {
		t.Error("an unlabelled namespace matched")
	}
	s.namespaces["team"] = map[string]string{"kind": "batch"}
	if n, d := s.place(t.Context(), newPodInfo(pod)); n == nil {
		t.Error(d)
	}
}

// What is counted must be gone when all pods are, in whatever order things happen.
func TestAccountingComesOutEven(t *testing.T) {
	s := newState(&storage{})
	p := newPodInfo(makePod("p").requests("cpu", "1", "example.com/x", "2").obj())
	q := newPodInfo(makePod("q").requests("memory", "1Gi").awayFrom("zone", "a", "b").obj())
	s.assume(p, "n") // before the node is known
	s.setNode(makeNode("n"))
	s.confirm(p, "n")
	s.confirm(p, "n")
	s.forget(p.uid)
	if got := s.nodes["n"].used.cpu; got != 1000 {
		t.Errorf("%d millicores used, want 1000", got)
	}
	s.assume(q, "n")
	s.confirm(q, "m") // someone else put it elsewhere
	if len(s.nodes["n"].pods) != 1 || len(s.nodes["m"].pods) != 1 || len(s.repelling) != 1 {
		t.Errorf("state %+v", s)
	}
	s.remove(q.uid)
	s.remove(p.uid)
	s.remove(p.uid)
	used := s.nodes["n"].used
	if used.cpu != 0 || used.memory != 0 || used.scalar["example.com/x"] != 0 {
		t.Errorf("left: %+v", used)
	}
	s.removeNode("n")
	if len(s.nodes)+len(s.placed)+len(s.repelling)+len(s.candidates) != 0 {
		t.Errorf("left: %+v", s)
	}
}

func TestNodeUpdatesThatMatter(t *testing.T) {
	node := makeNode("n")
	for name, tc := range map[string]struct {
		change func(*v1.Node)
		want   bool
	}{
		"a heartbeat": {func(n *v1.Node) {
			n.ResourceVersion = "2"
			n.Status.Conditions = []v1.NodeCondition{{Type: v1.NodeReady, LastHeartbeatTime: metav1.Now()}}
			n.Status.Images = []v1.ContainerImage{{Names: []string{"x"}}}
		}, false},
		"the same amount, written otherwise": {func(n *v1.Node) {
			n.Status.Allocatable[v1.ResourceCPU] = resource.MustParse("2000m")
		}, false},
		"a label":      {func(n *v1.Node) { n.Labels["a"] = "b" }, true},
		"a taint":      {func(n *v1.Node) { n.Spec.Taints = []v1.Taint{{Key: "k"}} }, true},
		"a cordon":     {func(n *v1.Node) { n.Spec.Unschedulable = true }, true},
		"its capacity": {func(n *v1.Node) { n.Status.Allocatable[v1.ResourceCPU] = resource.MustParse("4") }, true},
	} {
		s := stateWith(node)
		if got := s.setNode(changedNode(node, tc.change)); got != tc.want {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}
