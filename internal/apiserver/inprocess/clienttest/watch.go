package clienttest

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/ptr"
)

func watchCases() []Case {
	return []Case{
		{Name: "watch", Run: watchChanges},
		{Name: "watch/selected", Run: watchSelected},
		{Name: "watch/start", Run: watchStart},
		{Name: "watch/stop", Run: watchStop},
		{Name: "watch/context", Run: watchContextEnds},
		{Name: "watch/timeout", Run: watchTimeout},
		{Name: "watch/refused", Run: watchRefused},
		{Name: "watch/expired", Run: watchExpired, Alone: true},
	}
}

// next receives the next event, which must come.
func (s *Session) next(w watch.Interface) watch.Event {
	s.Helper()
	select {
	case ev, ok := <-w.ResultChan():
		if !ok {
			s.Fatal("the watch ended")
		}
		return ev
	case <-s.Ctx.Done():
		s.Fatal("no event")
	}
	return watch.Event{}
}

// drained waits until the watch has ended, and returns how many events still came.
func (s *Session) drained(w watch.Interface) int {
	s.Helper()
	for n := 0; ; n++ {
		select {
		case _, ok := <-w.ResultChan():
			if !ok {
				return n
			}
		case <-s.Ctx.Done():
			s.Fatal("the watch doesn't end")
		}
	}
}

// brief shows an event's type and object's name.
func brief(ev watch.Event) string {
	m, err := meta.Accessor(ev.Object)
	if err != nil {
		return fmt.Sprintf("%s %T", ev.Type, ev.Object)
	}
	return fmt.Sprintf("%s %s", ev.Type, m.GetName())
}

func (s *Session) watchPods(opts metav1.ListOptions) watch.Interface {
	s.Helper()
	w, err := s.Pods().Watch(s.Ctx, opts)
	s.Must(err)
	s.Cleanup(w.Stop)
	return w
}

func (s *Session) listVersion() string {
	s.Helper()
	l, err := s.Pods().List(s.Ctx, metav1.ListOptions{})
	s.Must(err)
	return l.ResourceVersion
}

func watchChanges(s *Session) {
	w := s.watchPods(metav1.ListOptions{ResourceVersion: s.listVersion()})
	created := s.createPod(MakeLargePod("a"))
	_, err := s.Pods().Patch(s.Ctx, "a", types.MergePatchType, []byte(`{"status":{"phase":"Running"}}`), metav1.PatchOptions{}, "status")
	s.Must(err)
	s.Must(s.Pods().Delete(s.Ctx, "a", metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}))
	var seen []watch.EventType
	for i := 0; len(seen) == 0 || seen[i-1] != watch.Deleted; i++ {
		ev := s.next(w)
		s.Record(fmt.Sprintf("%d %s", i, ev.Type), ev.Object, nil)
		p, ok := ev.Object.(*corev1.Pod)
		s.That(ok && p.UID == created.UID && p.Kind == "", "event %d: %s", i, brief(ev))
		seen = append(seen, ev.Type)
	}
	s.That(seen[0] == watch.Added && seen[1] == watch.Modified, "got %v", seen)
}

func watchSelected(s *Session) {
	rv := s.listVersion()
	labelled := s.watchPods(metav1.ListOptions{ResourceVersion: rv, LabelSelector: "on=yes"})
	named := s.watchPods(metav1.ListOptions{ResourceVersion: rv, FieldSelector: "metadata.name=b"})
	running := s.watchPods(metav1.ListOptions{ResourceVersion: rv, FieldSelector: "status.phase=Running"})
	s.createPod(MakePod("a"))
	s.createPod(MakePod("b"))
	for _, value := range []string{`"yes"`, `"no"`} {
		_, err := s.Pods().Patch(s.Ctx, "b", types.MergePatchType, []byte(`{"metadata":{"labels":{"on":`+value+`}}}`), metav1.PatchOptions{})
		s.Must(err)
	}
	for _, phase := range []string{"Running", "Succeeded"} {
		_, err := s.Pods().Patch(s.Ctx, "a", types.MergePatchType, []byte(`{"status":{"phase":"`+phase+`"}}`), metav1.PatchOptions{}, "status")
		s.Must(err)
	}
	for _, want := range []string{"ADDED b", "DELETED b"} {
		s.That(brief(s.next(labelled)) == want, "by label: want %s", want)
	}
	for _, want := range []string{"ADDED b", "MODIFIED b", "MODIFIED b"} {
		s.That(brief(s.next(named)) == want, "by name: want %s", want)
	}
	for _, want := range []string{"ADDED a", "DELETED a"} {
		s.That(brief(s.next(running)) == want, "by phase: want %s", want)
	}
}

// watchStart starts without a version: what exists comes first.
func watchStart(s *Session) {
	s.createPod(MakePod("a"))
	for _, rv := range []string{"", "0"} {
		s.eventually("a watch from "+rv, func() bool {
			w, err := s.Pods().Watch(s.Ctx, metav1.ListOptions{ResourceVersion: rv})
			s.Must(err)
			defer w.Stop()
			return brief(s.next(w)) == "ADDED a"
		})
	}
	rv := s.listVersion()
	s.createPod(MakePod("b"))
	w := s.watchPods(metav1.ListOptions{ResourceVersion: rv})
	s.That(brief(s.next(w)) == "ADDED b", "a watch starts after its version")
}

func watchStop(s *Session) {
	w := s.watchPods(metav1.ListOptions{ResourceVersion: s.listVersion()})
	w.Stop()
	w.Stop()
	s.drained(w)
	w = s.watchPods(metav1.ListOptions{ResourceVersion: s.listVersion()})
	for i := range 20 { // more than any buffer that nobody reads
		s.createConfigMap(MakeConfigMap(fmt.Sprint("c", i)))
		s.createPod(MakePod(fmt.Sprint("p", i)))
	}
	w.Stop()
	s.drained(w)
}

func watchContextEnds(s *Session) {
	ctx, cancel := context.WithCancel(s.Ctx)
	w, err := s.Pods().Watch(ctx, metav1.ListOptions{ResourceVersion: s.listVersion()})
	s.Must(err)
	cancel()
	s.That(s.drained(w) <= 1, "events after the end of the context")
	_, err = s.Pods().Watch(ctx, metav1.ListOptions{})
	s.That(err != nil, "a watch started in a context that had ended")
}

func watchTimeout(s *Session) {
	w := s.watchPods(metav1.ListOptions{ResourceVersion: s.listVersion(), TimeoutSeconds: ptr.To[int64](1)})
	s.That(s.drained(w) == 0, "events nobody caused")
}

func watchRefused(s *Session) {
	for name, opts := range inOrder(map[string]metav1.ListOptions{
		"bad version":             {ResourceVersion: "x"},
		"label":                   {LabelSelector: "a in b"},
		"field":                   {FieldSelector: "spec.invented=x"},
		"field syntax":            {FieldSelector: "spec"},
		"match without events":    {ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan},
		"events without match":    {SendInitialEvents: ptr.To(true)},
		"events at exact version": {SendInitialEvents: ptr.To(true), ResourceVersionMatch: metav1.ResourceVersionMatchExact, ResourceVersion: "1"},
		"continue":                {Continue: "x", SendInitialEvents: ptr.To(true), ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan},
	}) {
		w, err := s.Pods().Watch(s.Ctx, opts)
		s.Want(name, anyError, err)
		if w != nil && err == nil {
			w.Stop()
		}
	}
}

// watchExpired starts from a version that is too long ago, which shows either at once or as an Error event.
func watchExpired(s *Session) {
	if s.Server.Compact == nil {
		return
	}
	s.createConfigMap(MakeConfigMap("a"))
	s.Must(s.Server.Compact(s.Ctx))
	// A watch cache may still know what the store has forgotten. Events have none.
	w, err := s.CoreV1().Events(s.Namespace).Watch(s.Ctx, metav1.ListOptions{ResourceVersion: "1"})
	s.RecordText("at once", fmt.Sprint(err != nil))
	if err == nil {
		ev := s.next(w)
		s.That(ev.Type == watch.Error, "got %s", brief(ev))
		err = apierrors.FromObject(ev.Object)
		s.drained(w)
	}
	s.Want("expired", func(err error) bool { return apierrors.IsResourceExpired(err) || apierrors.IsGone(err) }, err)
}
