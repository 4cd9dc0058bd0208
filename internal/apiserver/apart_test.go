package apiserver

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// Somebody who watches events, as kubectl get events -w does, keeps nobody else
// waiting on an errand where nothing is written.
func TestWatchingEventsHoldsNoOneUp(t *testing.T) {
	ns := namespace(t, nil) // what a cache of pods has not heard of
	events, err := shared.client.CoreV1().Events(ns).Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer events.Stop()
	began := time.Now()
	pods, err := shared.client.CoreV1().Pods(ns).Watch(t.Context(), metav1.ListOptions{
		SendInitialEvents: ptr.To(true), AllowWatchBookmarks: true, ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer pods.Stop()
	if e, ok := <-pods.ResultChan(); !ok {
		t.Errorf("the watch ended with %v", e)
	}
	// A cache asks every 100 ms, and gives up after 3 s.
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("an informer of pods would have waited for %s", took)
	}
}
