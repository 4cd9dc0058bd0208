package clienttest

import (
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	policyv1beta1 "k8s.io/api/policy/v1beta1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
)

func evictCases() []Case {
	return []Case{
		{Name: "evict", Run: evict},
		{Name: "evict/refused", Run: evictRefused},
		{Name: "evict/options", Run: evictOptions},
		{Name: "evict/budget", Run: evictByBudget},
		{Name: "evict/two budgets", Run: evictByTwoBudgets},
	}
}

func eviction(pod string, options *metav1.DeleteOptions) *policyv1.Eviction {
	return &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: pod}, DeleteOptions: options}
}

func evict(s *Session) {
	s.createPod(MakePod("unbound"))
	s.Must(s.Pods().EvictV1(s.Ctx, eviction("unbound", nil)))
	_, err := s.Pods().Get(s.Ctx, "unbound", metav1.GetOptions{})
	s.Want("unbound", apierrors.IsNotFound, err)

	s.createBoundPod("bound")
	s.Must(s.Pods().EvictV1(s.Ctx, eviction("bound", nil)))
	s.wantEvicted("bound")
	s.RecordError("again", s.Pods().EvictV1(s.Ctx, eviction("bound", nil)))

	s.createBoundPod("beta")
	s.Must(s.Pods().EvictV1beta1(s.Ctx, &policyv1beta1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: "beta"}}))
	s.wantEvicted("beta")
}

// wantEvicted checks a pod that is going, and says why.
func (s *Session) wantEvicted(name string) {
	s.Helper()
	p, err := s.Pods().Get(s.Ctx, name, metav1.GetOptions{})
	s.Record(name+" evicted", p, err)
	s.Must(err)
	s.That(p.DeletionTimestamp != nil && disruption(p) != nil && disruption(p).Reason == "EvictionByEvictionAPI",
		"%s: deletion %v, conditions %v", name, p.DeletionTimestamp, p.Status.Conditions)
}

func disruption(p *corev1.Pod) *corev1.PodCondition {
	for i, c := range p.Status.Conditions {
		if c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue {
			return &p.Status.Conditions[i]
		}
	}
	return nil
}

func evictRefused(s *Session) {
	s.Want("missing", apierrors.IsNotFound, s.Pods().EvictV1(s.Ctx, eviction("missing", nil)))
	s.Want("no name", anyError, s.Pods().EvictV1(s.Ctx, eviction("", nil)))
	s.Want("bad name", anyError, s.Pods().EvictV1(s.Ctx, eviction("a/b", nil)))
	s.Want("of all namespaces", anyError, s.CoreV1().Pods("").EvictV1(s.Ctx, eviction("a", nil)))
	s.createBoundPod("a")
	elsewhere := eviction("a", nil)
	elsewhere.Namespace = "elsewhere"
	s.Want("elsewhere", apierrors.IsBadRequest, s.Pods().EvictV1(s.Ctx, elsewhere))
	s.Want("unreadable", apierrors.IsInvalid, s.Pods().EvictV1(s.Ctx, eviction("a", &metav1.DeleteOptions{IgnoreStoreReadErrorWithClusterBreakingPotential: ptr.To(true)})))
	p, err := s.Pods().Get(s.Ctx, "a", metav1.GetOptions{})
	s.Must(err)
	s.That(p.DeletionTimestamp == nil && disruption(p) == nil, "evicted: %v, %v", p.ObjectMeta, p.Status)
}

func evictOptions(s *Session) {
	p := s.createRunningPod("a")
	other := types.UID("99999999-9999-9999-9999-999999999999")
	s.Want("other uid", apierrors.IsConflict, s.Pods().EvictV1(s.Ctx, eviction("a", &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &other}})))
	s.Must(s.Pods().EvictV1(s.Ctx, eviction("a", &metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}})))
	unchanged, err := s.Pods().Get(s.Ctx, "a", metav1.GetOptions{})
	s.Must(err)
	s.That(unchanged.ResourceVersion == p.ResourceVersion, "refusals and a dry run changed the pod: %v", unchanged)

	options := &metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](7), Preconditions: &metav1.Preconditions{UID: &p.UID}}
	sent := eviction("a", options)
	s.Must(s.Pods().EvictV1(s.Ctx, sent))
	s.That(sent.Namespace == "" && *options.GracePeriodSeconds == 7, "the eviction was changed: %v", sent)
	s.wantEvicted("a")
	p, err = s.Pods().Get(s.Ctx, "a", metav1.GetOptions{})
	s.Must(err)
	s.That(*p.DeletionGracePeriodSeconds == 7, "deleted within %d s", *p.DeletionGracePeriodSeconds)
}

func evictByBudget(s *Session) {
	budget := s.createBudget("b", intstr.FromInt32(1))
	s.createRunningPod("one")
	s.createRunningPod("two")

	budget.Status = policyv1.PodDisruptionBudgetStatus{
		ObservedGeneration: budget.Generation, DisruptionsAllowed: 1, CurrentHealthy: 2, DesiredHealthy: 1, ExpectedPods: 2,
	}
	budget, err := s.PolicyV1().PodDisruptionBudgets(s.Namespace).UpdateStatus(s.Ctx, budget, metav1.UpdateOptions{})
	s.Record("budget", budget, err)
	s.Must(err)
	s.Must(s.Pods().EvictV1(s.Ctx, eviction("one", nil)))
	s.wantEvicted("one")
	s.Want("over budget", apierrors.IsTooManyRequests, s.Pods().EvictV1(s.Ctx, eviction("two", nil)))
	budget, err = s.PolicyV1().PodDisruptionBudgets(s.Namespace).Get(s.Ctx, "b", metav1.GetOptions{})
	s.Record("used up", budget, err)
	s.Must(err)
	_, counted := budget.Status.DisruptedPods["one"]
	s.That(counted && budget.Status.DisruptionsAllowed == 0, "the budget's status is %v", budget.Status)
}

func evictByTwoBudgets(s *Session) {
	s.createBudget("b", intstr.FromInt32(1))
	s.createBudget("c", intstr.FromInt32(1))
	s.createRunningPod("one")
	s.Want("two budgets", apierrors.IsInternalError, s.Pods().EvictV1(s.Ctx, eviction("one", nil)))
}

// createBudget makes a budget of the pods that createRunningPod makes.
func (s *Session) createBudget(name string, minAvailable intstr.IntOrString) *policyv1.PodDisruptionBudget {
	s.Helper()
	budget, err := s.PolicyV1().PodDisruptionBudgets(s.Namespace).Create(s.Ctx, &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: policyv1.PodDisruptionBudgetSpec{
			MinAvailable: &minAvailable, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"running": "yes"}},
		},
	}, metav1.CreateOptions{})
	s.Must(err)
	return budget
}

func (s *Session) createRunningPod(name string) *corev1.Pod {
	s.Helper()
	p := MakePod(name)
	p.Labels, p.Spec.NodeName = map[string]string{"running": "yes"}, "some-node"
	p = s.createPod(p)
	p.Status.Phase = corev1.PodRunning
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	p, err := s.Pods().UpdateStatus(s.Ctx, p, metav1.UpdateOptions{})
	s.Must(err)
	return p
}
