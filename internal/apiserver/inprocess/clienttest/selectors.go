package clienttest

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func selectorCases() []Case {
	return []Case{
		{Name: "select/labels", Run: selectLabels},
		{Name: "select/fields", Run: selectFields},
	}
}

func selectLabels(s *Session) {
	for i, labels := range []map[string]string{nil, {"a": "1"}, {"a": "2", "b": "x"}, {"b": "y"}} {
		p := MakePod(fmt.Sprint("p", i))
		p.Labels = labels
		s.createPod(p)
	}
	for selector, want := range inOrder(map[string]string{
		"":                "[p0 p1 p2 p3]",
		"a":               "[p1 p2]",
		"!a":              "[p0 p3]",
		"a=1":             "[p1]",
		"a==1":            "[p1]",
		"a!=1":            "[p0 p2 p3]",
		"a in (1,2),b":    "[p2]",
		"a notin (1),b":   "[p2 p3]",
		"a>1":             "[p2]",
		"a=b=c":           "",
		"a in":            "",
		"-a=1":            "",
		"a=1,":            "",
		"x/y/z=1":         "",
		"a=not a value":   "",
		"b in (x, y),a=2": "[p2]",
	}) {
		l, err := s.Pods().List(s.Ctx, metav1.ListOptions{LabelSelector: selector})
		got := fmt.Sprint(podNames(l.Items))
		s.RecordText(selector, got+describeError(err))
		s.That(want == "" || err == nil && got == want, "%q selects %s, %v", selector, got, err)
	}
}

func selectFields(s *Session) {
	s.createPod(MakePod("free"))
	bound := MakePod("bound")
	bound.Spec.NodeName, bound.Spec.ServiceAccountName = "n1", "other"
	s.createPod(bound)
	done := s.createPod(MakePod("done"))
	done.Status.Phase, done.Status.PodIP = corev1.PodSucceeded, ""
	_, err := s.Pods().UpdateStatus(s.Ctx, done, metav1.UpdateOptions{})
	s.Must(err)
	for selector, want := range inOrder(map[string]string{
		"metadata.name=free":                      "[free]",
		"metadata.name!=free":                     "[bound done]",
		"spec.nodeName=n1":                        "[bound]",
		"spec.nodeName=":                          "[done free]",
		"spec.nodeName!=n1,status.phase!=Pending": "[done]",
		"spec.host=n1":                            "[bound]",
		"spec.restartPolicy=Never":                "[bound done free]",
		"spec.serviceAccountName=other":           "[bound]",
		"metadata.namespace=other":                "[]",
		"spec.invented=x":                         "",
		"nothing":                                 "",
		"metadata.labels.a=b":                     "",
	}) {
		l, err := s.Pods().List(s.Ctx, metav1.ListOptions{FieldSelector: selector})
		got := fmt.Sprint(podNames(l.Items))
		s.RecordText(selector, got+describeError(err))
		s.That(want == "" || err == nil && got == want, "%q selects %s, %v", selector, got, err)
	}
	_, err = s.Jobs().Create(s.Ctx, MakeJob("a"), metav1.CreateOptions{})
	s.Must(err)
	for _, selector := range []string{"status.successful=0", "status.successful=1", "metadata.name=a", "status.failed=0"} {
		l, err := s.Jobs().List(s.Ctx, metav1.ListOptions{FieldSelector: selector})
		s.RecordText("job "+selector, fmt.Sprint(len(l.Items))+describeError(err))
	}
}
