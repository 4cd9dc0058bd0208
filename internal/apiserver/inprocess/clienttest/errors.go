package clienttest

import (
	"context"
	"errors"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func errorCases() []Case {
	return []Case{
		{Name: "context/canceled", Run: canceled},
		{Name: "context/deadline", Run: deadline},
		{Name: "quota", Run: quotaExceeded},
	}
}

// everyVerb makes one call of each kind.
func (s *Session) everyVerb(ctx context.Context) map[string]error {
	errs := map[string]error{}
	p := MakePod("a")
	_, errs["create"] = s.Pods().Create(ctx, p, metav1.CreateOptions{})
	_, errs["update"] = s.Pods().Update(ctx, p, metav1.UpdateOptions{})
	_, errs["status"] = s.Pods().UpdateStatus(ctx, p, metav1.UpdateOptions{})
	_, errs["patch"] = s.Pods().Patch(ctx, "a", types.MergePatchType, []byte(`{}`), metav1.PatchOptions{})
	_, errs["get"] = s.Pods().Get(ctx, "a", metav1.GetOptions{})
	_, errs["list"] = s.Pods().List(ctx, metav1.ListOptions{})
	_, errs["watch"] = s.Pods().Watch(ctx, metav1.ListOptions{})
	errs["delete"] = s.Pods().Delete(ctx, "a", metav1.DeleteOptions{})
	errs["deletecollection"] = s.Pods().DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{})
	errs["bind"] = s.Pods().Bind(ctx, &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Target: corev1.ObjectReference{Kind: "Node", Name: "n"}}, metav1.CreateOptions{})
	return errs
}

func canceled(s *Session) {
	ctx, cancel := context.WithCancel(s.Ctx)
	cancel()
	for verb, err := range s.everyVerb(ctx) {
		s.That(errors.Is(err, context.Canceled), "%s: %v", verb, err)
	}
	l, err := s.Pods().List(s.Ctx, metav1.ListOptions{})
	s.Must(err)
	s.That(len(l.Items) == 0, "a canceled create made something")
}

func deadline(s *Session) {
	ctx, cancel := context.WithDeadline(s.Ctx, time.Now().Add(-time.Second))
	defer cancel()
	for verb, err := range s.everyVerb(ctx) {
		s.That(errors.Is(err, context.DeadlineExceeded), "%s: %v", verb, err)
	}
	// A read that has to wait for a future version gives up with its caller.
	ctx, cancel = context.WithTimeout(s.Ctx, 50*time.Millisecond)
	defer cancel()
	cm := s.createConfigMap(MakeConfigMap("a"))
	start := time.Now()
	_, err := s.ConfigMaps().List(ctx, metav1.ListOptions{ResourceVersion: cm.ResourceVersion + "000"})
	s.That(err != nil && time.Since(start) < 30*time.Second, "list: %v after %v", err, time.Since(start))
}

func quotaExceeded(s *Session) {
	hard := corev1.ResourceList{corev1.ResourcePods: resource.MustParse("0")}
	q := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "q"}, Spec: corev1.ResourceQuotaSpec{Hard: hard}}
	q, err := s.CoreV1().ResourceQuotas(s.Namespace).Create(s.Ctx, q, metav1.CreateOptions{})
	s.Must(err)
	q.Status.Hard, q.Status.Used = hard, hard
	_, err = s.CoreV1().ResourceQuotas(s.Namespace).UpdateStatus(s.Ctx, q, metav1.UpdateOptions{})
	s.Must(err)
	s.eventually("admission knows the quota and its status", func() bool {
		_, err = s.Pods().Create(s.Ctx, MakePod("a"), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err != nil && !strings.Contains(err.Error(), "status unknown")
	})
	_, err = s.Pods().Create(s.Ctx, MakePod("a"), metav1.CreateOptions{})
	s.Want("pod", apierrors.IsForbidden, err)
}
