package controllers_test

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// A taint of the effect NoExecute ends the pods of its node that don't tolerate
// it at once, those that do for a time after that, unless it has gone until
// then, and no others. The pods say that they were disrupted.
func TestTaintEviction(t *testing.T) {
	client := start(t)
	if _, err := client.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	tolerating(t, client, "never", nil)
	tolerating(t, client, "for-ever", &corev1.Toleration{Key: "broken", Operator: corev1.TolerationOpExists})
	tolerating(t, client, "for-a-second", &corev1.Toleration{Key: "broken", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: new(int64(1))})
	tolerating(t, client, "for-an-hour", &corev1.Toleration{Key: "broken", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: new(int64(3600))})

	taint(t, client, `[{"key":"broken","effect":"NoExecute"}]`)
	pods := client.CoreV1().Pods("default")
	until(t, pods, "never", evicted)
	until(t, pods, "for-a-second", evicted)
	taint(t, client, `null`)
	event := firstEvent(t, client, "for-an-hour")
	if event.Reason != "TaintManagerEviction" || event.Message != "Cancelling deletion of Pod default/for-an-hour" || event.Source.Component != "taint-eviction-controller" {
		t.Errorf("%s says %s: %s", event.Source.Component, event.Reason, event.Message)
	}
	for _, name := range []string{"for-ever", "for-an-hour"} {
		pod, err := pods.Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if pod.DeletionTimestamp != nil || len(pod.Status.Conditions) > 0 {
			t.Errorf("%s is to go at %v, with the conditions %+v", name, pod.DeletionTimestamp, pod.Status.Conditions)
		}
	}
}

// firstEvent waits for the first event of a pod.
func firstEvent(t *testing.T, client kubernetes.Interface, pod string) *corev1.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	w, err := client.CoreV1().Events("default").Watch(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("involvedObject.name", pod).String()})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	for ev := range w.ResultChan() {
		if event, ok := ev.Object.(*corev1.Event); ok {
			return event
		}
	}
	t.Fatalf("there is no event of %s after %v", pod, patience)
	return nil
}

// tolerating makes a pod of the node n.
func tolerating(t *testing.T, client kubernetes.Interface, name string, toleration *corev1.Toleration) {
	t.Helper()
	until(t, client.CoreV1().ServiceAccounts("default"), "default", func(*corev1.ServiceAccount) bool { return true })
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: podSpec()}
	pod.Spec.NodeName = "n"
	if toleration != nil {
		pod.Spec.Tolerations = []corev1.Toleration{*toleration}
	}
	if _, err := client.CoreV1().Pods("default").Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// taint sets the taints of the node n.
func taint(t *testing.T, client kubernetes.Interface, taints string) {
	t.Helper()
	patch := []byte(`{"spec":{"taints":` + taints + `}}`)
	if _, err := client.CoreV1().Nodes().Patch(t.Context(), "n", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
}

// evicted tells whether the pod is on its way, and says why.
func evicted(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue && c.Reason == "DeletionByTaintManager" {
			return pod.DeletionTimestamp != nil
		}
	}
	return false
}
