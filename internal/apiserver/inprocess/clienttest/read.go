package clienttest

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func readCases() []Case {
	return []Case{
		{Name: "get", Run: get},
		{Name: "list", Run: list},
		{Name: "list/pages", Run: listPages},
		{Name: "list/versions", Run: listVersions},
		{Name: "list/expired", Run: listExpired, Alone: true},
	}
}

func get(s *Session) {
	p := s.createPod(MakeLargePod("a"))
	for _, rv := range []string{"", "0", p.ResourceVersion} {
		// At version 0 any state will do, also one before the pod.
		s.eventually("get at "+rv, func() bool {
			got, err := s.Pods().Get(s.Ctx, "a", metav1.GetOptions{ResourceVersion: rv})
			if rv == "0" && apierrors.IsNotFound(err) {
				return false
			}
			s.Must(err)
			s.That(equality.Semantic.DeepEqual(p, got), "at %q got %v", rv, got)
			return true
		})
	}
	out, err := s.Pods().Get(s.Ctx, "missing", metav1.GetOptions{})
	s.Want("missing", apierrors.IsNotFound, err)
	s.That(out != nil, "beside an error there is an empty object")
	_, err = s.Pods().Get(s.Ctx, "missing", metav1.GetOptions{ResourceVersion: "0"})
	s.Want("missing at 0", apierrors.IsNotFound, err)
	_, err = s.Pods().Get(s.Ctx, "a", metav1.GetOptions{ResourceVersion: "x"})
	s.Want("bad version", anyError, err)
	for _, name := range []string{"", "a/b", "..", "a%2fb"} {
		_, err = s.Pods().Get(s.Ctx, name, metav1.GetOptions{})
		s.Want("name "+name, anyError, err)
	}
	_, err = s.CoreV1().Pods("").Get(s.Ctx, "a", metav1.GetOptions{})
	s.Want("no namespace", anyError, err)
	_, err = s.CoreV1().Pods("a/b").Get(s.Ctx, "a", metav1.GetOptions{})
	s.Want("bad namespace", anyError, err)
}

func list(s *Session) {
	empty, err := s.Pods().List(s.Ctx, metav1.ListOptions{})
	s.Record("empty", empty, err)
	s.Must(err)
	s.That(empty.ResourceVersion != "", "a list has a version")
	for _, name := range []string{"b", "a", "c"} {
		s.createPod(MakePod(name))
	}
	l, err := s.Pods().List(s.Ctx, metav1.ListOptions{})
	s.Record("list", l, err)
	s.Must(err)
	s.That(fmt.Sprint(podNames(l.Items)) == "[a b c]", "got %v", podNames(l.Items))
	s.That(l.Kind == "" && l.Items[0].Kind == "", "typed results have no TypeMeta")
	all, err := s.CoreV1().Pods("").List(s.Ctx, metav1.ListOptions{FieldSelector: "metadata.namespace=" + s.Namespace})
	s.Must(err)
	s.That(equality.Semantic.DeepEqual(all.Items, l.Items), "all namespaces: %v", podNames(all.Items))
}

func listPages(s *Session) {
	for i := range 5 {
		s.createPod(MakePod(fmt.Sprintf("p%d", i)))
	}
	var pages []string
	opts := metav1.ListOptions{Limit: 2}
	for {
		l, err := s.Pods().List(s.Ctx, opts)
		s.Must(err)
		pages = append(pages, fmt.Sprintf("%v remaining %d more %t", podNames(l.Items), ptr.Deref(l.RemainingItemCount, -1), l.Continue != ""))
		if len(pages) == 1 {
			s.createPod(MakePod("p9")) // not in the version that the list reads
			_, err = s.Pods().List(s.Ctx, metav1.ListOptions{Limit: 2, Continue: l.Continue, ResourceVersion: l.ResourceVersion})
			s.Want("continue with a version", anyError, err)
		}
		if opts.Continue = l.Continue; opts.Continue == "" {
			break
		}
	}
	s.RecordText("pages", strings.Join(pages, "\n"))
	s.That(len(pages) == 3, "got %v", pages)
	_, err := s.Pods().List(s.Ctx, metav1.ListOptions{Limit: 2, Continue: "garbage"})
	s.Want("bad token", anyError, err)
	l, err := s.Pods().List(s.Ctx, metav1.ListOptions{Limit: -1})
	s.RecordError("negative limit", err)
	s.That(len(l.Items) == 6, "a negative limit is none, got %d items", len(l.Items))
}

func listVersions(s *Session) {
	old := s.createPod(MakePod("a"))
	s.createPod(MakePod("b"))
	for name, opts := range inOrder(map[string]metav1.ListOptions{
		"exact":                  {ResourceVersion: old.ResourceVersion, ResourceVersionMatch: metav1.ResourceVersionMatchExact},
		"exact, limited":         {ResourceVersion: old.ResourceVersion, ResourceVersionMatch: metav1.ResourceVersionMatchExact, Limit: 1},
		"exact 0":                {ResourceVersion: "0", ResourceVersionMatch: metav1.ResourceVersionMatchExact},
		"match without version":  {ResourceVersionMatch: metav1.ResourceVersionMatchExact},
		"unknown match":          {ResourceVersion: "1", ResourceVersionMatch: "Perhaps"},
		"initial events":         {SendInitialEvents: ptr.To(true)},
		"bad version":            {ResourceVersion: "x"},
		"negative version":       {ResourceVersion: "-1"},
		"label":                  {LabelSelector: "a in b"},
		"bookmarks":              {AllowWatchBookmarks: true},
		"short timeout":          {TimeoutSeconds: ptr.To[int64](30)},
		"continue with a match":  {Continue: "x", ResourceVersionMatch: metav1.ResourceVersionMatchExact},
		"watch option on a list": {Watch: false, SendInitialEvents: ptr.To(false)},
	}) {
		l, err := s.Pods().List(s.Ctx, opts)
		s.RecordText(name, fmt.Sprint(podNames(l.Items))+describeError(err))
	}
	for _, match := range []metav1.ResourceVersionMatch{"", metav1.ResourceVersionMatchNotOlderThan} {
		l, err := s.Pods().List(s.Ctx, metav1.ListOptions{ResourceVersion: old.ResourceVersion, ResourceVersionMatch: match})
		s.Must(err)
		s.That(len(l.Items) >= 1, "not older than: %v", podNames(l.Items))
	}
	_, err := s.Pods().List(s.Ctx, metav1.ListOptions{ResourceVersion: "0"})
	s.Must(err)
}

// listExpired asks for what compaction has taken away. A watch cache may still know that. Events have none.
func listExpired(s *Session) {
	if s.Server.Compact == nil {
		return
	}
	for _, name := range []string{"a", "b", "c"} {
		_, err := s.CoreV1().Events(s.Namespace).Create(s.Ctx, makeEvent(s.Namespace, name), metav1.CreateOptions{})
		s.Must(err)
	}
	l, err := s.CoreV1().Events(s.Namespace).List(s.Ctx, metav1.ListOptions{Limit: 1})
	s.Must(err)
	s.createConfigMap(MakeConfigMap("later"))
	s.Must(s.Server.Compact(s.Ctx))
	page, err := s.CoreV1().Events(s.Namespace).List(s.Ctx, metav1.ListOptions{Limit: 1, Continue: l.Continue})
	s.RecordText("continue", fmt.Sprint(len(page.Items))+expiredTrace(err))
	exact, err := s.CoreV1().Events(s.Namespace).List(s.Ctx, metav1.ListOptions{ResourceVersion: "1", ResourceVersionMatch: metav1.ResourceVersionMatchExact})
	s.RecordText("exact", fmt.Sprint(len(exact.Items))+expiredTrace(err))
	s.That(apierrors.IsResourceExpired(err), "a compacted version: %v", err)
}

// expiredTrace leaves out the token by which a client may go on in spite of the error.
func expiredTrace(err error) string {
	var status *apierrors.StatusError
	if s, ok := err.(*apierrors.StatusError); ok {
		status = &apierrors.StatusError{ErrStatus: *s.ErrStatus.DeepCopy()}
		status.ErrStatus.Continue = ""
		return describeError(status)
	}
	return describeError(err)
}
