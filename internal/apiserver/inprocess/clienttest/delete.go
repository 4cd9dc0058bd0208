package clienttest

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

func deleteCases() []Case {
	return []Case{
		{Name: "delete", Run: deleteAtOnce},
		{Name: "delete/graceful", Run: deleteGracefully},
		{Name: "delete/preconditions", Run: deletePreconditions},
		{Name: "delete/propagation", Run: deletePropagation},
		{Name: "delete/refused", Run: deleteRefused},
		{Name: "delete/dry run", Run: deleteDryRun},
		{Name: "delete/collection", Run: deleteCollection},
	}
}

func deleteAtOnce(s *Session) {
	s.createConfigMap(MakeConfigMap("a"))
	s.Must(s.ConfigMaps().Delete(s.Ctx, "a", metav1.DeleteOptions{}))
	_, err := s.ConfigMaps().Get(s.Ctx, "a", metav1.GetOptions{})
	s.Want("get", apierrors.IsNotFound, err)
	s.Want("again", apierrors.IsNotFound, s.ConfigMaps().Delete(s.Ctx, "a", metav1.DeleteOptions{}))
	s.createPod(MakePod("unbound"))
	s.Must(s.Pods().Delete(s.Ctx, "unbound", metav1.DeleteOptions{}))
	_, err = s.Pods().Get(s.Ctx, "unbound", metav1.GetOptions{})
	s.Want("unbound pod", apierrors.IsNotFound, err)
}

func deleteGracefully(s *Session) {
	for name, grace := range inOrder(map[string]*int64{"default": nil, "short": ptr.To[int64](2), "long": ptr.To[int64](300)}) {
		s.createBoundPod(name)
		opts := metav1.DeleteOptions{GracePeriodSeconds: grace}
		sent := opts.DeepCopy()
		s.Must(s.Pods().Delete(s.Ctx, name, opts))
		s.That(equality.Semantic.DeepEqual(&opts, sent), "delete changed its options to %v", opts)
		p, err := s.Pods().Get(s.Ctx, name, metav1.GetOptions{})
		s.Record(name, p, err)
		s.Must(err)
		s.That(p.DeletionTimestamp != nil && *p.DeletionGracePeriodSeconds == ptr.Deref(grace, 30), "%s: got %v", name, p.ObjectMeta)
	}
	// A later request can shorten the time, and zero ends it.
	s.Must(s.Pods().Delete(s.Ctx, "long", metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](5)}))
	p, err := s.Pods().Get(s.Ctx, "long", metav1.GetOptions{})
	s.Must(err)
	s.That(*p.DeletionGracePeriodSeconds == 5, "got %d s", *p.DeletionGracePeriodSeconds)
	s.Must(s.Pods().Delete(s.Ctx, "long", metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}))
	_, err = s.Pods().Get(s.Ctx, "long", metav1.GetOptions{})
	s.Want("forced", apierrors.IsNotFound, err)
}

func deletePreconditions(s *Session) {
	p := s.createPod(MakePod("a"))
	wrongUID, wrongVersion := types.UID("77777777-7777-7777-7777-777777777777"), "1"
	err := s.Pods().Delete(s.Ctx, "a", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &wrongUID}})
	s.Want("uid", apierrors.IsConflict, err)
	err = s.Pods().Delete(s.Ctx, "a", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: &wrongVersion}})
	s.Want("version", apierrors.IsConflict, err)
	s.Must(s.Pods().Delete(s.Ctx, "a", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &p.UID, ResourceVersion: &p.ResourceVersion}}))
}

func deletePropagation(s *Session) {
	for i, policy := range []metav1.DeletionPropagation{metav1.DeletePropagationOrphan, metav1.DeletePropagationForeground, metav1.DeletePropagationBackground} {
		name := fmt.Sprint("p", i)
		_, err := s.Jobs().Create(s.Ctx, MakeJob(name), metav1.CreateOptions{})
		s.Must(err)
		s.Must(s.Jobs().Delete(s.Ctx, name, metav1.DeleteOptions{PropagationPolicy: &policy}))
		j, err := s.Jobs().Get(s.Ctx, name, metav1.GetOptions{})
		if err == nil {
			s.RecordText(string(policy), fmt.Sprintf("finalizers %v deleting %t", j.Finalizers, j.DeletionTimestamp != nil))
		} else {
			s.RecordError(string(policy), err)
		}
	}
	_, err := s.Jobs().Create(s.Ctx, MakeJob("orphans"), metav1.CreateOptions{})
	s.Must(err)
	//lint:ignore SA1019 the deprecated field still has to work
	s.Must(s.Jobs().Delete(s.Ctx, "orphans", metav1.DeleteOptions{OrphanDependents: ptr.To(true)}))
	j, err := s.Jobs().Get(s.Ctx, "orphans", metav1.GetOptions{})
	s.Must(err)
	s.RecordText("orphan dependents", fmt.Sprint(j.Finalizers))
}

func deleteRefused(s *Session) {
	s.createPod(MakePod("a"))
	s.Want("missing", apierrors.IsNotFound, s.Pods().Delete(s.Ctx, "missing", metav1.DeleteOptions{}))
	s.Want("policy", apierrors.IsInvalid, s.Pods().Delete(s.Ctx, "a", metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletionPropagation("Sideways"))}))
	//lint:ignore SA1019 the deprecated field still has to work
	s.Want("both", apierrors.IsInvalid, s.Pods().Delete(s.Ctx, "a", metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationOrphan), OrphanDependents: ptr.To(true)}))
	s.Want("no name", anyError, s.Pods().Delete(s.Ctx, "", metav1.DeleteOptions{}))
	s.Want("no namespace", anyError, s.CoreV1().Pods("").Delete(s.Ctx, "a", metav1.DeleteOptions{}))
	s.Want("slash", anyError, s.Pods().Delete(s.Ctx, "a/b", metav1.DeleteOptions{}))
	err := s.Pods().Delete(s.Ctx, "a", metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](-1)})
	s.RecordError("negative", err)
	s.RecordError("unsafe", s.ConfigMaps().Delete(s.Ctx, "b", metav1.DeleteOptions{IgnoreStoreReadErrorWithClusterBreakingPotential: ptr.To(true)}))
}

func deleteDryRun(s *Session) {
	s.createBoundPod("a")
	s.Must(s.Pods().Delete(s.Ctx, "a", metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}}))
	p, err := s.Pods().Get(s.Ctx, "a", metav1.GetOptions{})
	s.Must(err)
	s.That(p.DeletionTimestamp == nil, "dry run deleted the pod")
	s.Want("missing", apierrors.IsNotFound, s.Pods().Delete(s.Ctx, "b", metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}}))
}

func deleteCollection(s *Session) {
	for _, name := range []string{"a", "b", "c"} {
		p := MakePod(name)
		p.Labels = map[string]string{"keep": fmt.Sprint(name == "c")}
		s.createPod(p)
	}
	names := func() string {
		list, err := s.Pods().List(s.Ctx, metav1.ListOptions{})
		s.Must(err)
		return fmt.Sprint(podNames(list.Items))
	}
	s.Must(s.Pods().DeleteCollection(s.Ctx, metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}}, metav1.ListOptions{}))
	s.That(names() == "[a b c]", "dry run left %s", names())
	err := s.Pods().DeleteCollection(s.Ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "a=b=c"})
	s.Want("selector", apierrors.IsBadRequest, err)
	err = s.Pods().DeleteCollection(s.Ctx, metav1.DeleteOptions{}, metav1.ListOptions{FieldSelector: "spec.invented=x"})
	s.Want("field", apierrors.IsBadRequest, err)
	err = s.Pods().DeleteCollection(s.Ctx, metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletionPropagation("Sideways"))}, metav1.ListOptions{})
	s.Want("options", apierrors.IsInvalid, err)
	s.Want("no namespace", anyError, s.CoreV1().Pods("").DeleteCollection(s.Ctx, metav1.DeleteOptions{}, metav1.ListOptions{}))
	s.Must(s.Pods().DeleteCollection(s.Ctx, metav1.DeleteOptions{}, metav1.ListOptions{FieldSelector: "metadata.name=a"}))
	s.That(names() == "[b c]", "by field left %s", names())
	s.Must(s.Pods().DeleteCollection(s.Ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "keep!=true"}))
	s.That(names() == "[c]", "by label left %s", names())
	s.Must(s.Pods().DeleteCollection(s.Ctx, metav1.DeleteOptions{}, metav1.ListOptions{}))
	s.That(names() == "[]", "left %s", names())
}

func podNames(pods []corev1.Pod) []string {
	var names []string
	for i := range pods {
		names = append(names, pods[i].Name)
	}
	return names
}
