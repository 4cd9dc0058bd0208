package clienttest

import (
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func createCases() []Case {
	return []Case{
		{Name: "create", Run: create},
		{Name: "create/generateName", Run: createGenerateName},
		{Name: "create/exists", Run: createExists},
		{Name: "create/invalid", Run: createInvalid},
		{Name: "create/system fields", Run: createSystemFields},
		{Name: "create/times", Run: createTimes},
		{Name: "create/namespaces", Run: createInOtherNamespaces},
		{Name: "create/duplicate owners", Run: createDuplicateOwners},
		{Name: "create/too large", Run: createTooLarge},
		{Name: "create/dry run", Run: createDryRun},
	}
}

func create(s *Session) {
	in := MakeLargePod("large")
	sent := in.DeepCopy()
	out, err := s.Pods().Create(s.Ctx, in, metav1.CreateOptions{FieldManager: "test"})
	s.Record("create", out, err)
	s.Must(err)
	s.That(equality.Semantic.DeepEqual(in, sent), "create changed its argument")
	s.That(out.UID != "" && out.ResourceVersion != "" && !out.CreationTimestamp.IsZero(), "incomplete metadata: %v", out.ObjectMeta)
	s.That(out.Kind == "" && out.APIVersion == "", "typed results have no TypeMeta, got %v", out.TypeMeta)
	s.That(out.Spec.DNSPolicy == corev1.DNSClusterFirst, "defaults are missing")
	got, err := s.Pods().Get(s.Ctx, "large", metav1.GetOptions{})
	s.Record("get", got, err)
	s.That(equality.Semantic.DeepEqual(out, got), "create returned something else than get")
	s.That(got.Spec.Containers[0].Resources.Requests.Cpu().String() == "1", "quantities aren't canonical")
}

func createGenerateName(s *Session) {
	p := MakePod("")
	p.GenerateName = "made-"
	a, b := s.createPod(p), s.createPod(p)
	s.That(a.Name != b.Name && strings.HasPrefix(a.Name, "made-") && len(a.Name) == len("made-")+5, "generated %q and %q", a.Name, b.Name)
	s.Alias(a.Name, "<generated>")
	s.Record("create", a, nil)
	_, err := s.Pods().Create(s.Ctx, MakePod(""), metav1.CreateOptions{})
	s.Want("no name", apierrors.IsInvalid, err)
}

func createExists(s *Session) {
	s.createPod(MakePod("a"))
	out, err := s.Pods().Create(s.Ctx, MakePod("a"), metav1.CreateOptions{})
	s.Want("again", apierrors.IsAlreadyExists, err)
	s.That(out != nil && out.Name == "", "beside an error there is an empty object, got %v", out)
}

func createInvalid(s *Session) {
	for name, change := range inOrder(map[string]func(*corev1.Pod){
		"name":            func(p *corev1.Pod) { p.Name = "A_b" },
		"long name":       func(p *corev1.Pod) { p.Name = strings.Repeat("a", 254) },
		"no containers":   func(p *corev1.Pod) { p.Spec.Containers = nil },
		"restart policy":  func(p *corev1.Pod) { p.Spec.RestartPolicy = "Perhaps" },
		"duplicate names": func(p *corev1.Pod) { p.Spec.Containers = append(p.Spec.Containers, p.Spec.Containers[0]) },
		"label":           func(p *corev1.Pod) { p.Labels = map[string]string{"a b": "c"} },
		"several": func(p *corev1.Pod) {
			p.Spec.Containers[0].Image, p.Spec.Containers[0].Name, p.Spec.NodeName = "", "X", "Y"
		},
	}) {
		p := MakePod("a")
		change(p)
		_, err := s.Pods().Create(s.Ctx, p, metav1.CreateOptions{})
		s.Want(name, apierrors.IsInvalid, err)
	}
	for name, change := range inOrder(map[string]func(*batchv1.JobSpec){
		"completions":        func(j *batchv1.JobSpec) { j.Completions = ptr.To[int32](-1) },
		"job restart policy": func(j *batchv1.JobSpec) { j.Template.Spec.RestartPolicy = corev1.RestartPolicyAlways },
		"selector":           func(j *batchv1.JobSpec) { j.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}} },
	}) {
		j := MakeJob("a")
		change(&j.Spec)
		_, err := s.Jobs().Create(s.Ctx, j, metav1.CreateOptions{})
		s.Want(name, apierrors.IsInvalid, err)
	}
	_, err := s.Pods().Create(s.Ctx, MakePod("a"), metav1.CreateOptions{DryRun: []string{"Some"}})
	s.Want("dryRun", apierrors.IsInvalid, err)
	_, err = s.Pods().Create(s.Ctx, MakePod("a"), metav1.CreateOptions{FieldValidation: "Maybe"})
	s.Want("fieldValidation", apierrors.IsInvalid, err)
	_, err = s.Pods().Create(s.Ctx, nil, metav1.CreateOptions{})
	s.Want("nil", apierrors.IsBadRequest, err)
}

func createSystemFields(s *Session) {
	now := metav1.Now()
	p := MakePod("a")
	//lint:ignore SA1019 who still sets it must have it ignored
	p.UID, p.SelfLink, p.CreationTimestamp = "mine", "link", metav1.NewTime(time.Unix(1, 0))
	p.DeletionTimestamp, p.DeletionGracePeriodSeconds, p.Generation = &now, ptr.To[int64](3), 77
	p.ManagedFields = nil
	p.Status.Phase, p.Status.Message = corev1.PodRunning, "mine"
	out, err := s.Pods().Create(s.Ctx, p, metav1.CreateOptions{})
	s.Record("create", out, err)
	s.That(out.UID != "mine" && out.DeletionTimestamp == nil && out.Generation == 1, "system fields were taken over: %v", out.ObjectMeta)
	s.That(out.Status.Phase == corev1.PodPending && out.Status.Message == "", "the status was taken over: %v", out.Status)
	p.Name, p.ResourceVersion = "b", "1"
	_, err = s.Pods().Create(s.Ctx, p, metav1.CreateOptions{})
	s.Want("resourceVersion", func(error) bool { return true }, err)
}

// createTimes checks that results hold what is stored: times to the second and in the local zone, whatever the caller's had.
func createTimes(s *Session) {
	s.createPod(MakePod("a"))
	p, err := s.Pods().Get(s.Ctx, "a", metav1.GetOptions{})
	s.Must(err)
	sent := time.Date(2026, 1, 2, 3, 4, 5, 678, time.FixedZone("far", 3600))
	p.Status.StartTime = &metav1.Time{Time: sent}
	out, err := s.Pods().UpdateStatus(s.Ctx, p, metav1.UpdateOptions{})
	s.Must(err)
	s.That(out.Status.StartTime.Time == sent.Truncate(time.Second).Local(), "got %v, %#v", out.Status.StartTime, out.Status.StartTime)
	s.That(p.Status.StartTime.Time == sent, "the argument was changed")
	again, err := s.Pods().UpdateStatus(s.Ctx, out, metav1.UpdateOptions{})
	s.Must(err)
	s.That(again.ResourceVersion == out.ResourceVersion, "an update without change made a new version")
}

func createInOtherNamespaces(s *Session) {
	p := MakePod("a")
	p.Namespace = "elsewhere"
	_, err := s.Pods().Create(s.Ctx, p, metav1.CreateOptions{})
	s.Want("mismatch", apierrors.IsBadRequest, err)
	_, err = s.CoreV1().Pods("no-such-namespace").Create(s.Ctx, MakePod("a"), metav1.CreateOptions{})
	s.Want("missing", apierrors.IsNotFound, err)
	_, err = s.CoreV1().Pods("").Create(s.Ctx, MakePod("a"), metav1.CreateOptions{})
	s.Want("none", func(error) bool { return true }, err)
	s.Must(s.CoreV1().Namespaces().Delete(s.Ctx, s.Namespace, metav1.DeleteOptions{}))
	s.eventually("creation in a terminating namespace is refused", func() bool {
		_, err = s.Pods().Create(s.Ctx, MakePod("a"), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err != nil
	})
	s.Want("terminating", apierrors.IsForbidden, err)
	s.That(apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause), "no cause in %v", err)
}

func createDuplicateOwners(s *Session) {
	p := MakePod("a")
	owner := metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: "o", UID: "11111111-1111-1111-1111-111111111111"}
	other := owner
	other.Name = "p"
	p.OwnerReferences = []metav1.OwnerReference{owner, owner, other}
	out := s.createPod(p)
	s.Record("create", out, nil)
	s.That(len(out.OwnerReferences) == 2, "got %v", out.OwnerReferences)
	out.OwnerReferences = append(out.OwnerReferences, other)
	out, err := s.Pods().Update(s.Ctx, out, metav1.UpdateOptions{})
	s.Record("update", out, err)
}

func createTooLarge(s *Session) {
	cm := MakeConfigMap("a")
	cm.Data["key"] = strings.Repeat("x", 2<<20)
	_, err := s.ConfigMaps().Create(s.Ctx, cm, metav1.CreateOptions{})
	s.Want("invalid", apierrors.IsInvalid, err)
	cm.Data["key"] = strings.Repeat("x", 4<<20)
	_, err = s.ConfigMaps().Create(s.Ctx, cm, metav1.CreateOptions{})
	s.Want("refused", apierrors.IsRequestEntityTooLargeError, err)
}

func createDryRun(s *Session) {
	out, err := s.Pods().Create(s.Ctx, MakeLargePod("a"), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	s.Record("create", out, err)
	s.Must(err)
	_, err = s.Pods().Get(s.Ctx, "a", metav1.GetOptions{})
	s.Want("get", apierrors.IsNotFound, err)
}
