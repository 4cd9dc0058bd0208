package clienttest

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func updateCases() []Case {
	return []Case{
		{Name: "update", Run: update},
		{Name: "update/conflict", Run: updateConflict},
		{Name: "update/refused", Run: updateRefused},
		{Name: "update/status", Run: updateStatus},
		{Name: "update/dry run", Run: updateDryRun},
		{Name: "update/managed fields", Run: updateKeepsManagedFields},
		{Name: "update/last finalizer", Run: updateLastFinalizer},
	}
}

func update(s *Session) {
	p := s.createPod(MakeLargePod("a"))
	p.Labels["new"] = "label"
	p.Spec.Containers[0].Image = "busybox:2"
	sent := p.DeepCopy()
	out, err := s.Pods().Update(s.Ctx, p, metav1.UpdateOptions{})
	s.Record("update", out, err)
	s.Must(err)
	s.That(equality.Semantic.DeepEqual(p, sent), "update changed its argument")
	s.That(out.ResourceVersion != p.ResourceVersion && out.Labels["new"] == "label" && out.Generation == 2, "not updated: %v", out.ObjectMeta)
	got, err := s.Pods().Get(s.Ctx, "a", metav1.GetOptions{})
	s.Must(err)
	s.That(equality.Semantic.DeepEqual(out, got), "update returned something else than get")
	cm := s.createConfigMap(MakeConfigMap("unconditional"))
	cm.ResourceVersion, cm.UID, cm.Data["key"] = "", "", "changed"
	out2, err := s.ConfigMaps().Update(s.Ctx, cm, metav1.UpdateOptions{})
	s.Record("unconditional", out2, err)
	s.Must(err)
}

func updateConflict(s *Session) {
	p := s.createPod(MakePod("a"))
	p.Annotations = map[string]string{"n": "1"}
	_, err := s.Pods().Update(s.Ctx, p, metav1.UpdateOptions{})
	s.Must(err)
	_, err = s.Pods().Update(s.Ctx, p, metav1.UpdateOptions{})
	s.Want("stale", apierrors.IsConflict, err)
	_, err = s.Pods().UpdateStatus(s.Ctx, p, metav1.UpdateOptions{})
	s.Want("stale status", apierrors.IsConflict, err)
	p.ResourceVersion, p.UID = "", "22222222-2222-2222-2222-222222222222"
	_, err = s.Pods().Update(s.Ctx, p, metav1.UpdateOptions{})
	s.Want("another object", apierrors.IsConflict, err)
	p.ResourceVersion = "not a number"
	_, err = s.Pods().Update(s.Ctx, p, metav1.UpdateOptions{})
	s.Want("bad version", func(error) bool { return true }, err)
}

func updateRefused(s *Session) {
	_, err := s.Pods().Update(s.Ctx, MakePod("missing"), metav1.UpdateOptions{})
	s.Want("missing", apierrors.IsNotFound, err)
	missing := MakePod("missing")
	missing.UID, missing.ResourceVersion = "33333333-3333-3333-3333-333333333333", "5"
	_, err = s.Pods().Update(s.Ctx, missing, metav1.UpdateOptions{})
	s.Want("was deleted", func(error) bool { return true }, err)
	_, err = s.Pods().UpdateStatus(s.Ctx, MakePod("missing"), metav1.UpdateOptions{})
	s.Want("missing status", apierrors.IsNotFound, err)

	p := s.createPod(MakePod("a"))
	changed := p.DeepCopy()
	changed.Spec.RestartPolicy = corev1.RestartPolicyAlways
	_, err = s.Pods().Update(s.Ctx, changed, metav1.UpdateOptions{})
	s.Want("immutable", apierrors.IsInvalid, err)
	changed = p.DeepCopy()
	changed.Namespace = "elsewhere"
	_, err = s.Pods().Update(s.Ctx, changed, metav1.UpdateOptions{})
	s.Want("other namespace", apierrors.IsBadRequest, err)
	_, err = s.CoreV1().Pods("").Update(s.Ctx, p, metav1.UpdateOptions{})
	s.Want("no namespace", func(error) bool { return true }, err)
	_, err = s.Pods().Update(s.Ctx, MakePod(""), metav1.UpdateOptions{})
	s.Want("no name", func(error) bool { return true }, err)
	_, err = s.Pods().Update(s.Ctx, p, metav1.UpdateOptions{DryRun: []string{"All", "x"}})
	s.Want("options", apierrors.IsInvalid, err)
	j, err := s.Jobs().Create(s.Ctx, MakeJob("a"), metav1.CreateOptions{})
	s.Must(err)
	j.Spec.Template.Spec.Containers[0].Image = "other"
	_, err = s.Jobs().Update(s.Ctx, j, metav1.UpdateOptions{})
	s.Want("job template", apierrors.IsInvalid, err)
}

func updateStatus(s *Session) {
	p := s.createPod(MakePod("a"))
	p.Status.Phase = corev1.PodRunning
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", Image: "busybox", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}}}}
	p.Spec.Containers[0].Image, p.Labels = "ignored", map[string]string{"also": "ignored"}
	out, err := s.Pods().UpdateStatus(s.Ctx, p, metav1.UpdateOptions{})
	s.Record("status", out, err)
	s.Must(err)
	s.That(out.Status.Phase == corev1.PodRunning && out.Spec.Containers[0].Image == "busybox", "got %v", out)
	out.Status.ContainerStatuses[0].RestartCount = -1
	out.Status.Phase = corev1.PodFailed
	out.Spec.Containers[0].Image = "ignored"
	out, err = s.Pods().Update(s.Ctx, out, metav1.UpdateOptions{})
	s.Record("main", out, err)
	s.That(out.Status.Phase == corev1.PodRunning, "an update of the pod changed its status")
}

func updateDryRun(s *Session) {
	p := s.createPod(MakePod("a"))
	p.Labels = map[string]string{"dry": "run"}
	out, err := s.Pods().Update(s.Ctx, p, metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}})
	s.Record("update", out, err)
	got, err := s.Pods().Get(s.Ctx, "a", metav1.GetOptions{})
	s.Must(err)
	s.That(len(got.Labels) == 0 && out.Labels["dry"] == "run", "dry run returned %v and left %v", out.Labels, got.Labels)
}

// updateKeepsManagedFields checks that a client which leaves out the record of field ownership doesn't delete it.
func updateKeepsManagedFields(s *Session) {
	_, err := s.ConfigMaps().Patch(s.Ctx, "a", "application/apply-patch+yaml",
		[]byte(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"key":"v"}}`), metav1.PatchOptions{FieldManager: "owner"})
	s.Must(err)
	cm, err := s.ConfigMaps().Get(s.Ctx, "a", metav1.GetOptions{})
	s.Must(err)
	s.That(ownedBy(cm.ManagedFields, "owner"), "server-side apply recorded nobody")
	cm.ManagedFields, cm.Labels = nil, map[string]string{"a": "b"}
	cm, err = s.ConfigMaps().Update(s.Ctx, cm, metav1.UpdateOptions{})
	s.Must(err)
	s.That(ownedBy(cm.ManagedFields, "owner"), "an update lost the owner: %v", cm.ManagedFields)
	cm, err = s.ConfigMaps().Patch(s.Ctx, "a", "application/merge-patch+json", []byte(`{"metadata":{"labels":{"c":"d"}}}`), metav1.PatchOptions{})
	s.Must(err)
	s.That(ownedBy(cm.ManagedFields, "owner"), "a patch lost the owner: %v", cm.ManagedFields)
}

func ownedBy(entries []metav1.ManagedFieldsEntry, manager string) bool {
	for _, e := range entries {
		if e.Manager == manager && e.Operation == metav1.ManagedFieldsOperationApply {
			return true
		}
	}
	return false
}

func updateLastFinalizer(s *Session) {
	cm := MakeConfigMap("a")
	cm.Finalizers = []string{"test.errand.dev/hold"}
	s.createConfigMap(cm)
	s.Must(s.ConfigMaps().Delete(s.Ctx, "a", metav1.DeleteOptions{}))
	cm, err := s.ConfigMaps().Get(s.Ctx, "a", metav1.GetOptions{})
	s.Record("deleting", cm, err)
	s.Must(err)
	s.That(cm.DeletionTimestamp != nil, "not marked for deletion")
	added := cm.DeepCopy()
	added.Finalizers = append(added.Finalizers, "test.errand.dev/more")
	_, err = s.ConfigMaps().Update(s.Ctx, added, metav1.UpdateOptions{})
	s.Want("add a finalizer", apierrors.IsInvalid, err)
	cm.Finalizers = nil
	out, err := s.ConfigMaps().Update(s.Ctx, cm, metav1.UpdateOptions{})
	s.Record("last update", out, err)
	_, err = s.ConfigMaps().Get(s.Ctx, "a", metav1.GetOptions{})
	s.Want("gone", apierrors.IsNotFound, err)
}
