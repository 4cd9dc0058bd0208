package controllers

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"
)

// TestLatePods: a handler that is added while the informer has pods already
// hears of them only once it may.
func TestLatePods(t *testing.T) {
	client := fake.NewClientset(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "early"}})
	factory := informers.NewSharedInformerFactory(client, 0)
	late := &latePods{PodInformer: factory.Core().V1().Pods()}
	factory.Core().V1().Pods().Informer()
	factory.StartWithContext(t.Context())
	factory.WaitForCacheSync(t.Context().Done())

	heard := make(chan string, 1)
	whole := false
	handler := cache.ResourceEventHandlerFuncs{AddFunc: func(obj any) {
		if !whole {
			t.Error("a pod is told of before its listener is whole")
		}
		heard <- obj.(*corev1.Pod).Name
	}}
	registration, err := late.Informer().AddEventHandler(handler)
	if err != nil || !registration.HasSynced() {
		t.Fatal(registration, err)
	}
	if len(late.handlers) != 1 {
		t.Fatalf("%d handlers are kept back", len(late.handlers))
	}
	whole = true
	if err := late.listen(); err != nil {
		t.Fatal(err)
	}
	if name := <-heard; name != "early" {
		t.Error(name)
	}
}
