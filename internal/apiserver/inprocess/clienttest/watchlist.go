package clienttest

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/watchlist"
	"k8s.io/utils/ptr"
)

func watchListCases() []Case {
	return []Case{
		{Name: "watch/initial events", Run: watchInitialEvents},
		{Name: "informer", Run: informer},
	}
}

func watchInitialEvents(s *Session) {
	for _, name := range []string{"b", "a"} {
		s.createPod(MakePod(name))
	}
	w := s.watchPods(metav1.ListOptions{
		SendInitialEvents: ptr.To(true), AllowWatchBookmarks: true, ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan,
	})
	s.That(brief(s.next(w)) == "ADDED a" && brief(s.next(w)) == "ADDED b", "the initial events are what exists, in order")
	ev := s.next(w)
	s.Record("bookmark", ev.Object, nil)
	p, ok := ev.Object.(*corev1.Pod)
	s.That(ok && ev.Type == watch.Bookmark && p.Annotations[metav1.InitialEventsAnnotationKey] == "true" && p.ResourceVersion != "", "got %s", brief(ev))
	s.createPod(MakePod("c"))
	s.That(brief(s.next(w)) == "ADDED c", "changes follow the bookmark")
}

// informer runs client-go's informers on the client as they are.
func informer(s *Session) {
	s.That(!watchlist.DoesClientNotSupportWatchListSemantics(s.Interface), "informers would list rather than stream")
	s.createPod(MakePod("before"))
	factory := informers.NewSharedInformerFactoryWithOptions(s.Interface, 0, informers.WithNamespace(s.Namespace))
	pods := factory.Core().V1().Pods()
	seen := make(chan string, 100)
	show := func(what string, obj any) { seen <- fmt.Sprintf("%s %s", what, obj.(*corev1.Pod).Name) }
	_, err := pods.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { show("add", obj) },
		UpdateFunc: func(_, obj any) { show("update", obj) },
		DeleteFunc: func(obj any) { show("delete", obj) },
	})
	s.Must(err)
	stop := make(chan struct{})
	factory.Start(stop)
	defer factory.Shutdown()
	defer close(stop)
	s.That(cache.WaitForCacheSync(s.Ctx.Done(), pods.Informer().HasSynced), "the informer doesn't sync")
	s.createPod(MakePod("after"))
	_, err = s.Pods().Patch(s.Ctx, "after", types.MergePatchType, []byte(`{"metadata":{"labels":{"a":"b"}}}`), metav1.PatchOptions{})
	s.Must(err)
	s.Must(s.Pods().Delete(s.Ctx, "after", metav1.DeleteOptions{}))
	for _, want := range []string{"add before", "add after", "update after", "delete after"} {
		s.That(s.hear(seen, want), "no %q", want)
	}
	p, err := pods.Lister().Pods(s.Namespace).Get("before")
	s.Record("cached", p, err)
}

// hear waits for what is wanted. The pod may be updated in between, as a step of its deletion.
func (s *Session) hear(seen <-chan string, want string) bool {
	for {
		select {
		case got := <-seen:
			if got == want {
				return true
			}
			if got != "update after" {
				s.Errorf("got %q instead of %q", got, want)
				return false
			}
		case <-s.Ctx.Done():
			return false
		}
	}
}
