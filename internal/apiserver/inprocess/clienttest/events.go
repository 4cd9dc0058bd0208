package clienttest

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func eventCases() []Case {
	return []Case{
		{Name: "events", Run: events},
		{Name: "events/recorder", Run: eventsInOwnNamespace},
		{Name: "events/groups", Run: eventsInBothGroups},
	}
}

func makeEvent(namespace, name string) *corev1.Event {
	return &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Name: name, Namespace: namespace},
		InvolvedObject: corev1.ObjectReference{Kind: "Pod", Name: "p", Namespace: namespace, APIVersion: "v1"},
		Reason:         "Tested", Message: "it was", Type: corev1.EventTypeNormal, Count: 1,
		Source: corev1.EventSource{Component: "test"}, FirstTimestamp: metav1.Now(), LastTimestamp: metav1.Now(),
	}
}

func events(s *Session) {
	c := s.CoreV1().Events(s.Namespace)
	ev, err := c.Create(s.Ctx, makeEvent(s.Namespace, "a"), metav1.CreateOptions{})
	s.Record("create", ev, err)
	s.Must(err)
	ev, err = c.Patch(s.Ctx, "a", types.StrategicMergePatchType, []byte(`{"count":2}`), metav1.PatchOptions{})
	s.Record("patch", ev, err)
	bad := makeEvent(s.Namespace, "b")
	bad.InvolvedObject.Namespace = "elsewhere"
	_, err = c.Create(s.Ctx, bad, metav1.CreateOptions{})
	s.Want("other namespace", anyError, err)
	for _, selector := range []string{"involvedObject.name=p", "involvedObject.name=q", "reason=Tested,type=Normal", "source=test", "regarding.name=p", "invented=x"} {
		l, err := c.List(s.Ctx, metav1.ListOptions{FieldSelector: selector})
		s.RecordText(selector, fmt.Sprint(len(l.Items))+describeError(err))
	}
	p := MakePod("p")
	p.Namespace = s.Namespace
	p.TypeMeta = metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"}
	s.Must(c.DeleteCollection(s.Ctx, metav1.DeleteOptions{}, metav1.ListOptions{}))
}

// eventsInOwnNamespace uses the verbs of event recorders, which hold a client of all namespaces.
func eventsInOwnNamespace(s *Session) {
	all, own := s.CoreV1().Events(""), s.CoreV1().Events(s.Namespace)
	ev, err := all.CreateWithEventNamespaceWithContext(s.Ctx, makeEvent(s.Namespace, "a"))
	s.Record("create", ev, err)
	s.Must(err)
	ev.Count = 2
	ev, err = all.UpdateWithEventNamespaceWithContext(s.Ctx, ev)
	s.Record("update", ev, err)
	ev, err = all.PatchWithEventNamespaceWithContext(s.Ctx, makeEvent(s.Namespace, "a"), []byte(`{"count":3}`))
	s.Record("patch", ev, err)
	s.That(ev.Count == 3, "got %d", ev.Count)
	_, err = own.CreateWithEventNamespaceWithContext(s.Ctx, makeEvent(s.Namespace, "b"))
	s.Must(err)
	elsewhere := makeEvent("elsewhere", "c")
	_, err = own.CreateWithEventNamespaceWithContext(s.Ctx, elsewhere)
	s.Want("create elsewhere", anyError, err)
	_, err = own.UpdateWithEventNamespaceWithContext(s.Ctx, elsewhere)
	s.Want("update elsewhere", anyError, err)
	_, err = own.PatchWithEventNamespaceWithContext(s.Ctx, elsewhere, []byte(`{}`))
	s.Want("patch elsewhere", anyError, err)
	_, err = all.CreateWithEventNamespaceWithContext(s.Ctx, makeEvent("no-such-namespace", "c"))
	s.Want("missing namespace", anyError, err)
}

// eventsInBothGroups sees that an event is one object under two API groups.
func eventsInBothGroups(s *Session) {
	now := metav1.NowMicro()
	c := s.EventsV1().Events(s.Namespace)
	ev, err := c.Create(s.Ctx, &eventsv1.Event{
		ObjectMeta: metav1.ObjectMeta{Name: "a"}, EventTime: now, ReportingController: "test.errand.dev/c", ReportingInstance: "i", Action: "Test",
		Reason: "Tested", Note: "it was", Type: "Normal", Regarding: corev1.ObjectReference{Kind: "Pod", Name: "p", Namespace: s.Namespace},
	}, metav1.CreateOptions{})
	s.Record("create", ev, err)
	s.Must(err)
	old, err := s.CoreV1().Events(s.Namespace).Get(s.Ctx, "a", metav1.GetOptions{})
	s.Record("as core", old, err)
	s.That(old.Message == "it was" && old.UID == ev.UID, "got %v", old)
	ev, err = c.Patch(s.Ctx, "a", types.MergePatchType, []byte(fmt.Sprintf(`{"series":{"count":2,"lastObservedTime":%q}}`, now.UTC().Format(metav1.RFC3339Micro))), metav1.PatchOptions{})
	s.Record("series", ev, err)
	l, err := c.List(s.Ctx, metav1.ListOptions{FieldSelector: "regarding.name=p"})
	s.RecordText("list", fmt.Sprint(len(l.Items))+describeError(err))
	_, err = c.Create(s.Ctx, &eventsv1.Event{ObjectMeta: metav1.ObjectMeta{Name: "b"}, Note: "incomplete"}, metav1.CreateOptions{})
	s.Want("incomplete", anyError, err)
	s.Must(c.Delete(s.Ctx, "a", metav1.DeleteOptions{}))
}
