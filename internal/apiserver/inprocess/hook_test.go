package inprocess_test

import (
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"errand.dev/errand/internal/apiserver/inprocess/clienttest"
)

// TestAdmission plays cases that need the tests' own admission plugin.
func TestAdmission(t *testing.T) {
	clienttest.RunCases(t, server(t).underTest(),
		clienttest.Case{Name: "told", Run: admissionIsTold},
		clienttest.Case{Name: "denies", Run: admissionDenies},
	)
}

func annotated(name, key, value string) *corev1.Pod {
	p := clienttest.MakePod(name)
	p.Annotations = map[string]string{key: value}
	return p
}

// admissionIsTold compares what admission plugins learn about each kind of write.
func admissionIsTold(s *clienttest.Session) {
	told := func(what string, p *corev1.Pod, err error) {
		s.Helper()
		s.Must(err)
		s.That(p.Annotations[hookTell] != "", "%s: nobody was told", what)
		s.RecordText(what, p.Annotations[hookTell])
	}
	dry := []string{metav1.DryRunAll}
	p, err := s.Pods().Create(s.Ctx, annotated("dry", hookTell, ""), metav1.CreateOptions{DryRun: dry})
	told("dry create", p, err)
	p, err = s.Pods().Create(s.Ctx, annotated("a", hookTell, ""), metav1.CreateOptions{})
	told("create", p, err)
	p.Labels = map[string]string{"a": "b"}
	p, err = s.Pods().Update(s.Ctx, p, metav1.UpdateOptions{FieldManager: "m"})
	told("update", p, err)
	p, err = s.Pods().Patch(s.Ctx, "a", types.MergePatchType, []byte(`{"metadata":{"labels":{"a":"c"}}}`), metav1.PatchOptions{})
	told("patch", p, err)
	p.Status.Phase = corev1.PodRunning
	_, err = s.Pods().UpdateStatus(s.Ctx, p, metav1.UpdateOptions{})
	s.Must(err)
	generated := annotated("", hookTell, "")
	generated.GenerateName = "g-"
	p, err = s.Pods().Create(s.Ctx, generated, metav1.CreateOptions{})
	s.Alias(p.Name, "<generated>")
	told("generated", p, err)
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "l", Annotations: map[string]string{hookTell: ""}}}
	lease, err = s.CoordinationV1().Leases(s.Namespace).Update(s.Ctx, lease, metav1.UpdateOptions{})
	s.Must(err)
	s.RecordText("create by update", lease.Annotations[hookTell])
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.Namespace + "-2", Annotations: map[string]string{hookTell: ""}}}
	ns, err = s.CoreV1().Namespaces().Create(s.Ctx, ns, metav1.CreateOptions{DryRun: dry})
	s.Must(err)
	s.RecordText("namespace", ns.Annotations[hookTell])
}

func admissionDenies(s *clienttest.Session) {
	_, err := s.Pods().Create(s.Ctx, annotated("a", hookDeny, "no such thing"), metav1.CreateOptions{})
	s.Want("create", apierrors.IsForbidden, err)
	p, err := s.Pods().Create(s.Ctx, clienttest.MakePod("a"), metav1.CreateOptions{})
	s.Must(err)
	p.Annotations = map[string]string{hookDeny: "not now"}
	_, err = s.Pods().Update(s.Ctx, p, metav1.UpdateOptions{})
	s.Want("update", apierrors.IsForbidden, err)
	_, err = s.Pods().UpdateStatus(s.Ctx, p, metav1.UpdateOptions{})
	s.RecordError("status", err)
	patch := []byte(`{"metadata":{"annotations":{"` + hookDeny + `":"not so"}}}`)
	_, err = s.Pods().Patch(s.Ctx, "a", types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	s.Want("patch", apierrors.IsForbidden, err)
	binding := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: "a", Annotations: p.Annotations}, Target: corev1.ObjectReference{Kind: "Node", Name: "n"}}
	s.Want("bind", apierrors.IsForbidden, s.Pods().Bind(s.Ctx, binding, metav1.CreateOptions{}))
	held := clienttest.MakePod("held")
	held.Spec.NodeName = "n"
	held.Annotations = map[string]string{hookKeep: "stays"}
	_, err = s.Pods().Create(s.Ctx, held, metav1.CreateOptions{})
	s.Must(err)
	s.Want("delete", apierrors.IsForbidden, s.Pods().Delete(s.Ctx, "held", metav1.DeleteOptions{}))
	s.Want("delete all", apierrors.IsForbidden, s.Pods().DeleteCollection(s.Ctx, metav1.DeleteOptions{}, metav1.ListOptions{FieldSelector: "metadata.name=held"}))
}

// TestPanic checks that a plugin's panic is an error of that request and nothing else. Over HTTP it resets the connection's stream.
func TestPanic(t *testing.T) {
	pods := server(t).client.CoreV1().Pods("default")
	_, err := pods.Create(t.Context(), annotated("panics", hookPanic, "oh"), metav1.CreateOptions{})
	if !apierrors.IsInternalError(err) {
		t.Errorf("create: %v", err)
	}
	if _, err = pods.Create(t.Context(), clienttest.MakePod("panics"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err = pods.Patch(t.Context(), "panics", types.MergePatchType, []byte(`{"metadata":{"annotations":{"`+hookPanic+`":"oh"}}}`), metav1.PatchOptions{})
	if !apierrors.IsInternalError(err) {
		t.Errorf("patch: %v", err)
	}
	if err := pods.Delete(t.Context(), "panics", metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
}
