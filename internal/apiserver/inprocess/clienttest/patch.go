package clienttest

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
)

func patchCases() []Case {
	return []Case{
		{Name: "patch", Run: patch},
		{Name: "patch/status", Run: patchStatus},
		{Name: "patch/lists", Run: patchLists},
		{Name: "patch/preconditions", Run: patchPreconditions},
		{Name: "patch/dry run", Run: patchDryRun},
		{Name: "patch/apply", Run: patchApply},
		{Name: "patch/no change", Run: patchNoChange},
		{Name: "patch/metadata", Run: patchMetadata},
		{Name: "patch/last finalizer", Run: patchLastFinalizer},
	}
}

// patch changes the same things in each of the three ways.
func patch(s *Session) {
	for name, p := range inOrder(map[string]struct {
		pt   types.PatchType
		data string
	}{
		"json": {types.JSONPatchType, `[{"op":"test","path":"/kind","value":"Pod"},{"op":"replace","path":"/spec/containers/0/image","value":"i:2"},` +
			`{"op":"add","path":"/metadata/labels/new","value":"l"},{"op":"remove","path":"/metadata/annotations"}]`},
		"merge":     {types.MergePatchType, `{"metadata":{"labels":{"new":"l"},"annotations":null},"spec":{"activeDeadlineSeconds":9}}`},
		"strategic": {types.StrategicMergePatchType, `{"metadata":{"labels":{"new":"l"},"annotations":null},"spec":{"containers":[{"name":"main","image":"i:2"}]}}`},
	}) {
		before := s.createPod(MakeLargePod(name))
		out, err := s.Pods().Patch(s.Ctx, name, p.pt, []byte(p.data), metav1.PatchOptions{})
		s.Record(name, out, err)
		s.Must(err)
		s.That(out.Labels["new"] == "l" && out.Labels["app"] == "large" && len(out.Annotations) == 0, "%s: got %v", name, out.ObjectMeta)
		s.That(out.Generation == 2 && out.ResourceVersion != before.ResourceVersion, "%s: got %v", name, out.ObjectMeta)
		s.That(out.Kind == "" && out.APIVersion == "", "%s: typed results have no TypeMeta, got %v", name, out.TypeMeta)
		got, err := s.Pods().Get(s.Ctx, name, metav1.GetOptions{})
		s.Must(err)
		s.That(equality.Semantic.DeepEqual(out, got), "%s returned something else than get", name)
	}
}

// patchMetadata sends JSON patches of nothing but metadata.
func patchMetadata(s *Session) {
	s.createPod(MakeLargePod("a"))
	for i, data := range []string{
		`[{"op":"test","path":"/metadata/name","value":"a"},{"op":"add","path":"/metadata/labels/of~1two","value":"l"}]`,
		`[{"op":"add","path":"/metadata/finalizers","value":["x.io/a","x.io/b"]}]`,
		`[{"op":"test","path":"/metadata/finalizers/0","value":"x.io/a"},{"op":"remove","path":"/metadata/finalizers/0"}]`,
		`[{"op":"move","from":"/metadata/labels/of~1two","path":"/metadata/annotations/moved"}]`,
		`[{"op":"remove","path":"/metadata/annotations"},{"op":"remove","path":"/metadata/labels"}]`,
	} {
		out, err := s.Pods().Patch(s.Ctx, "a", types.JSONPatchType, []byte(data), metav1.PatchOptions{})
		s.Record(fmt.Sprint(i), out, err)
		s.Must(err)
		s.That(out.Generation == 1, "%d: got %v", i, out.ObjectMeta)
		got, err := s.Pods().Get(s.Ctx, "a", metav1.GetOptions{})
		s.Must(err)
		s.That(equality.Semantic.DeepEqual(out, got), "%d returned something else than get", i)
	}
}

func patchStatus(s *Session) {
	s.createPod(MakeLargePod("a"))
	for i, p := range []struct {
		pt   types.PatchType
		data string
	}{
		{types.StrategicMergePatchType, `{"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True","lastTransitionTime":null}],"podIPs":[{"ip":"10.0.0.1"}]}}`},
		{types.StrategicMergePatchType, `{"status":{"$setElementOrder/conditions":[{"type":"Ready"},{"type":"More"}],"conditions":[{"type":"More","status":"False"}],"startTime":"2026-01-02T03:04:05Z"}}`},
		{types.StrategicMergePatchType, `{"metadata":{"labels":{"n":"1"}},"spec":{"nodeName":"ignored"},"status":{"conditions":[{"type":"More","$patch":"delete"}]}}`},
		{types.MergePatchType, `{"status":{"reason":"Merged","containerStatuses":[{"name":"main","image":"i","imageID":"","ready":true,"restartCount":1,"state":{"running":{}}}]}}`},
		{types.JSONPatchType, `[{"op":"replace","path":"/status/phase","value":"Succeeded"}]`},
	} {
		out, err := s.Pods().Patch(s.Ctx, "a", p.pt, []byte(p.data), metav1.PatchOptions{}, "status")
		s.Record(fmt.Sprint(i), out, err)
		s.Must(err)
		s.That(out.Spec.NodeName == "", "a status patch changed the spec")
	}
}

func patchLists(s *Session) {
	s.createPod(MakeLargePod("a"))
	for i, data := range []string{
		`{"spec":{"tolerations":[{"key":"other","operator":"Exists"}]}}`,
		`{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"Pod","name":"x","uid":"44444444-4444-4444-4444-444444444444"}]}}`,
		`{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"Pod","name":"y","uid":"55555555-5555-5555-5555-555555555555"}]}}`,
		`{"metadata":{"ownerReferences":[{"$patch":"delete","uid":"44444444-4444-4444-4444-444444444444"}]}}`,
		`{"metadata":{"finalizers":["test.errand.dev/a"]}}`,
		`{"metadata":{"finalizers":["test.errand.dev/b"]}}`,
		`{"metadata":{"$deleteFromPrimitiveList/finalizers":["test.errand.dev/a"]}}`,
		`{"metadata":{"labels":{"$patch":"replace","only":"this"}}}`,
		`{"metadata":{"$retainKeys":["name","namespace","uid","resourceVersion","creationTimestamp"]}}`,
	} {
		out, err := s.Pods().Patch(s.Ctx, "a", types.StrategicMergePatchType, []byte(data), metav1.PatchOptions{})
		s.Record(fmt.Sprint(i), out, err)
	}
}

func patchPreconditions(s *Session) {
	p := s.createPod(MakePod("a"))
	for _, pt := range []types.PatchType{types.MergePatchType, types.StrategicMergePatchType} {
		_, err := s.Pods().Patch(s.Ctx, "a", pt, []byte(`{"metadata":{"uid":"66666666-6666-6666-6666-666666666666"}}`), metav1.PatchOptions{})
		s.Want(string(pt)+" uid", apierrors.IsInvalid, err)
		_, err = s.Pods().Patch(s.Ctx, "a", pt, []byte(`{"metadata":{"resourceVersion":"1"}}`), metav1.PatchOptions{})
		s.Want(string(pt)+" version", apierrors.IsConflict, err)
		good := fmt.Sprintf(`{"metadata":{"uid":%q,"resourceVersion":%q,"labels":{"a":"b"}}}`, p.UID, p.ResourceVersion)
		p, err = s.Pods().Patch(s.Ctx, "a", pt, []byte(good), metav1.PatchOptions{})
		s.Record(string(pt)+" good", p, err)
		s.Must(err)
	}
}

func patchDryRun(s *Session) {
	s.createPod(MakePod("a"))
	out, err := s.Pods().Patch(s.Ctx, "a", types.MergePatchType, []byte(`{"metadata":{"labels":{"a":"b"}}}`), metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}})
	s.Record("patch", out, err)
	got, err := s.Pods().Get(s.Ctx, "a", metav1.GetOptions{})
	s.Must(err)
	s.That(len(got.Labels) == 0 && out.Labels["a"] == "b", "dry run returned %v and left %v", out.Labels, got.Labels)
}

func patchApply(s *Session) {
	config := applycorev1.ConfigMap("a", s.Namespace).WithData(map[string]string{"k": "v"})
	out, err := s.ConfigMaps().Apply(s.Ctx, config, metav1.ApplyOptions{FieldManager: "one"})
	s.Record("apply", out, err)
	s.Must(err)
	config.WithData(map[string]string{"k": "w"})
	_, err = s.ConfigMaps().Apply(s.Ctx, config, metav1.ApplyOptions{FieldManager: "two"})
	s.Want("conflict", apierrors.IsConflict, err)
	out, err = s.ConfigMaps().Patch(s.Ctx, "a", types.ApplyYAMLPatchType, []byte("apiVersion: v1\nkind: ConfigMap\ndata: {k: x}\n"), metav1.PatchOptions{FieldManager: "one"})
	s.Record("as a patch", out, err)
	pod := applycorev1.Pod("a", s.Namespace).WithStatus(applycorev1.PodStatus().WithPhase(corev1.PodRunning))
	s.createPod(MakePod("a"))
	// Forced, since whoever wrote the pod need not be on record as the owner of its fields.
	p, err := s.Pods().ApplyStatus(s.Ctx, pod, metav1.ApplyOptions{FieldManager: "one", Force: true})
	s.Record("status", p, err)
	s.Must(err)
}

func patchNoChange(s *Session) {
	before := s.createPod(MakeLargePod("a"))
	for _, pt := range []types.PatchType{types.MergePatchType, types.StrategicMergePatchType} {
		for _, data := range []string{`{}`, `{"metadata":{"labels":{"app":"large"}}}`, `{"spec":{"restartPolicy":"Never"}}`, `{"status":{"phase":"Failed"}}`} {
			out, err := s.Pods().Patch(s.Ctx, "a", pt, []byte(data), metav1.PatchOptions{})
			s.Must(err)
			s.That(out.ResourceVersion == before.ResourceVersion, "%s %s made a new version", pt, data)
		}
	}
}

func patchLastFinalizer(s *Session) {
	p := MakePod("a")
	p.Finalizers = []string{"test.errand.dev/hold"}
	s.createPod(p)
	s.Must(s.Pods().Delete(s.Ctx, "a", metav1.DeleteOptions{}))
	out, err := s.Pods().Patch(s.Ctx, "a", types.StrategicMergePatchType,
		[]byte(`{"metadata":{"$deleteFromPrimitiveList/finalizers":["test.errand.dev/hold"]}}`), metav1.PatchOptions{})
	s.Record("patch", out, err)
	s.Must(err)
	_, err = s.Pods().Get(s.Ctx, "a", metav1.GetOptions{})
	s.Want("gone", apierrors.IsNotFound, err)
}
