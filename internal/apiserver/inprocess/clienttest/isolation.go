package clienttest

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

func isolationCases() []Case {
	return []Case{
		{Name: "isolation/results", Run: isolatedResults},
		{Name: "isolation/arguments", Run: isolatedArguments},
		{Name: "isolation/watchers", Run: isolatedWatchers},
	}
}

// spoil changes whatever a pod shares with others, if it does.
func spoil(p *corev1.Pod) {
	p.Labels["app"], p.Annotations["note"], p.Annotations["added"] = "spoilt", "spoilt", "spoilt"
	c := &p.Spec.Containers[0]
	c.Image, c.Env[0].Value, c.Command[0], c.Ports[0].ContainerPort = "spoilt", "spoilt", "spoilt", 1
	c.Env[1].ValueFrom.FieldRef.FieldPath = "spoilt"
	c.Resources.Requests[corev1.ResourceCPU] = c.Resources.Limits[corev1.ResourceCPU]
	p.Spec.Volumes[0].EmptyDir.SizeLimit.Add(*c.Resources.Limits.Memory())
	*p.Spec.SecurityContext.RunAsUser, *p.Spec.Tolerations[0].TolerationSeconds, *p.Spec.TerminationGracePeriodSeconds = 0, 0, 0
	for i := range p.ManagedFields {
		//lint:ignore SA1019 the bytes themselves are spoilt, not replaced
		clear(p.ManagedFields[i].FieldsV1.Raw)
	}
}

// isolatedResults changes everything that calls return, and looks whether anyone else sees that.
func isolatedResults(s *Session) {
	created := s.createPod(MakeLargePod("a"))
	want := created.DeepCopy()
	check := func(what string) {
		s.Helper()
		for _, rv := range []string{"", want.ResourceVersion} {
			got, err := s.Pods().Get(s.Ctx, "a", metav1.GetOptions{ResourceVersion: rv})
			s.Must(err)
			s.That(equality.Semantic.DeepEqual(got, want), "after spoiling the result of %s, get at %q returns %v", what, rv, got)
			spoil(got)
		}
	}
	spoil(created)
	check("create")
	check("get")
	for _, rv := range []string{"", want.ResourceVersion} {
		l, err := s.Pods().List(s.Ctx, metav1.ListOptions{ResourceVersion: rv})
		s.Must(err)
		spoil(&l.Items[0])
		check("list at " + rv)
	}
	dry, err := s.Pods().Patch(s.Ctx, "a", types.MergePatchType, []byte(`{"metadata":{"labels":{"x":"y"}}}`), metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}})
	s.Must(err)
	spoil(dry)
	check("dry run")
	same, err := s.Pods().Update(s.Ctx, want, metav1.UpdateOptions{})
	s.Must(err)
	spoil(same)
	check("update without change")
	want, err = s.Pods().Patch(s.Ctx, "a", types.StrategicMergePatchType, []byte(`{"status":{"phase":"Running"}}`), metav1.PatchOptions{}, "status")
	s.Must(err)
	spoilt := want
	want = want.DeepCopy()
	spoil(spoilt)
	check("patch")
}

// isolatedArguments changes what was passed in, right after the call.
func isolatedArguments(s *Session) {
	in := MakeLargePod("a")
	sent := in.DeepCopy()
	out, err := s.Pods().Create(s.Ctx, in, metav1.CreateOptions{})
	s.Must(err)
	s.That(equality.Semantic.DeepEqual(in, sent), "create changed its argument")
	want := out.DeepCopy()
	spoil(in)
	s.That(equality.Semantic.DeepEqual(out, want), "create returned its argument's memory")
	updated, err := s.Pods().Update(s.Ctx, out, metav1.UpdateOptions{})
	s.Must(err)
	s.That(equality.Semantic.DeepEqual(out, want), "update changed its argument")
	spoil(out)
	s.That(equality.Semantic.DeepEqual(updated, want), "update returned its argument's memory")
	got, err := s.Pods().Get(s.Ctx, "a", metav1.GetOptions{})
	s.Must(err)
	s.That(equality.Semantic.DeepEqual(got, want), "a stored pod shares its writer's memory")
}

// isolatedWatchers spoils the events of one watcher and looks at those of the others.
func isolatedWatchers(s *Session) {
	rv := s.listVersion()
	var watchers []watch.Interface
	for range 5 { // beyond a few, the watch cache shares its encoding of an object
		watchers = append(watchers, s.watchPods(metav1.ListOptions{ResourceVersion: rv}))
	}
	want := s.createPod(MakeLargePod("a"))
	for i, w := range watchers {
		p, ok := s.next(w).Object.(*corev1.Pod)
		s.That(ok && equality.Semantic.DeepEqual(p, want), "watcher %d got %v", i, p)
		spoil(p)
	}
	got, err := s.Pods().Get(s.Ctx, "a", metav1.GetOptions{ResourceVersion: want.ResourceVersion})
	s.Must(err)
	s.That(equality.Semantic.DeepEqual(got, want), "get returns %v", got)
	s.RecordText("watchers", fmt.Sprint(len(watchers)))
}
