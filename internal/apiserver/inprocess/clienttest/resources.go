package clienttest

import (
	"fmt"

	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

func resourceCases() []Case {
	return []Case{
		{Name: "jobs", Run: jobs},
		{Name: "leases", Run: leases},
		{Name: "nodes", Run: nodes},
		{Name: "namespaces", Run: namespaces},
		{Name: "secrets", Run: secrets},
		{Name: "bind", Run: bind},
		{Name: "other clients", Run: otherClients},
	}
}

func jobs(s *Session) {
	j, err := s.Jobs().Create(s.Ctx, MakeJob("a"), metav1.CreateOptions{})
	s.Record("create", j, err)
	s.Must(err)
	s.That(*j.Spec.Completions == 1 && j.Spec.Selector != nil, "defaults and the selector are missing: %v", j.Spec)
	now := metav1.Now()
	j.Status = batchv1.JobStatus{StartTime: &now, Active: 1, UncountedTerminatedPods: &batchv1.UncountedTerminatedPods{Succeeded: []types.UID{"x"}}}
	j, err = s.Jobs().UpdateStatus(s.Ctx, j, metav1.UpdateOptions{})
	s.Record("status", j, err)
	s.Must(err)
	bad := j.DeepCopy()
	bad.Status.CompletionTime = &now
	_, err = s.Jobs().UpdateStatus(s.Ctx, bad, metav1.UpdateOptions{})
	s.Want("completion time of an unfinished job", apierrors.IsInvalid, err)
	j.Status.Active, j.Status.Succeeded, j.Status.CompletionTime = 0, 1, &now
	j.Status.UncountedTerminatedPods = &batchv1.UncountedTerminatedPods{}
	for _, t := range []batchv1.JobConditionType{batchv1.JobSuccessCriteriaMet, batchv1.JobComplete} {
		j.Status.Conditions = append(j.Status.Conditions, batchv1.JobCondition{Type: t, Status: corev1.ConditionTrue, LastTransitionTime: now})
	}
	j, err = s.Jobs().UpdateStatus(s.Ctx, j, metav1.UpdateOptions{})
	s.Record("complete", j, err)
	s.Must(err)
	j.Status.Conditions = append(j.Status.Conditions, batchv1.JobCondition{Type: "Mine", Status: corev1.ConditionTrue})
	j, err = s.Jobs().UpdateStatus(s.Ctx, j, metav1.UpdateOptions{})
	s.Record("complete and more", j, err)
	j, err = s.Jobs().Patch(s.Ctx, "a", types.StrategicMergePatchType, []byte(`{"spec":{"suspend":true}}`), metav1.PatchOptions{})
	s.Record("suspend", j, err)
}

func leases(s *Session) {
	c := s.CoordinationV1().Leases(s.Namespace)
	now := metav1.NowMicro()
	l := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Spec: coordinationv1.LeaseSpec{
		HolderIdentity: ptr.To("me"), LeaseDurationSeconds: ptr.To[int32](10), RenewTime: &now}}
	// A lease can be made by an update.
	out, err := c.Update(s.Ctx, l, metav1.UpdateOptions{})
	s.Record("update", out, err)
	s.Must(err)
	s.That(out.UID != "" && out.Spec.RenewTime.Equal(&metav1.MicroTime{Time: now.Truncate(1000)}), "times are kept to the microsecond, got %v", out.Spec.RenewTime)
	_, err = c.Create(s.Ctx, l, metav1.CreateOptions{})
	s.Want("create", apierrors.IsAlreadyExists, err)
	out, err = c.Patch(s.Ctx, "a", types.MergePatchType, []byte(`{"spec":{"holderIdentity":"you"}}`), metav1.PatchOptions{})
	s.Record("patch", out, err)
	l.Spec.LeaseDurationSeconds = ptr.To[int32](-1)
	_, err = c.Update(s.Ctx, l, metav1.UpdateOptions{})
	s.Want("invalid", apierrors.IsInvalid, err)
	s.Must(c.Delete(s.Ctx, "a", metav1.DeleteOptions{}))
	l.Name, l.UID = "b", "88888888-8888-8888-8888-888888888888"
	_, err = c.Update(s.Ctx, l, metav1.UpdateOptions{})
	s.Want("made by an update with a uid", anyError, err)
}

func nodes(s *Session) {
	c := s.CoreV1().Nodes()
	name := "node-" + s.Namespace
	n, err := c.Create(s.Ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	s.Record("create", n, err)
	s.Must(err)
	defer func() { s.Must(c.Delete(s.Ctx, name, metav1.DeleteOptions{})) }()
	n.Status.Capacity = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2000m")}
	n, err = c.UpdateStatus(s.Ctx, n, metav1.UpdateOptions{})
	s.Record("status", n, err)
	n, err = c.PatchStatus(s.Ctx, name, []byte(`{"status":{"conditions":[{"type":"Ready","status":"True"}]}}`))
	s.Record("patch status", n, err)
	n, err = c.Patch(s.Ctx, name, types.StrategicMergePatchType, []byte(`{"spec":{"taints":[{"key":"k","effect":"NoSchedule"}]}}`), metav1.PatchOptions{})
	s.Record("patch", n, err)
	l, err := c.List(s.Ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	s.Record("list", l, err)
	_, err = c.Get(s.Ctx, "missing", metav1.GetOptions{})
	s.Want("missing", apierrors.IsNotFound, err)
}

func namespaces(s *Session) {
	c := s.CoreV1().Namespaces()
	ns, err := c.Get(s.Ctx, s.Namespace, metav1.GetOptions{})
	s.Record("get", ns, err)
	s.Must(err)
	ns.Labels["a"] = "b"
	ns, err = c.Update(s.Ctx, ns, metav1.UpdateOptions{})
	s.Record("update", ns, err)
	ns, err = c.Patch(s.Ctx, s.Namespace, types.MergePatchType, []byte(`{"metadata":{"labels":{"a":"c"}}}`), metav1.PatchOptions{})
	s.Record("patch", ns, err)
	_, err = c.Create(s.Ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.Namespace}}, metav1.CreateOptions{})
	s.Want("again", apierrors.IsAlreadyExists, err)
	_, err = c.Create(s.Ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "A B"}}, metav1.CreateOptions{})
	s.Want("invalid", apierrors.IsInvalid, err)
	s.Want("protected", apierrors.IsForbidden, c.Delete(s.Ctx, "default", metav1.DeleteOptions{}))
	s.Must(c.Delete(s.Ctx, s.Namespace, metav1.DeleteOptions{}))
	ns, err = c.Get(s.Ctx, s.Namespace, metav1.GetOptions{})
	s.Record("terminating", ns, err)
	ns.Spec.Finalizers = nil
	ns, err = c.Finalize(s.Ctx, ns, metav1.UpdateOptions{})
	s.Record("finalize", ns, err)
}

func secrets(s *Session) {
	c := s.CoreV1().Secrets(s.Namespace)
	secret, err := c.Create(s.Ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Data: map[string][]byte{"k": {0, 255}}, StringData: map[string]string{"s": "v"}}, metav1.CreateOptions{})
	s.Record("create", secret, err)
	s.Must(err)
	secret.Type = corev1.SecretTypeTLS
	_, err = c.Update(s.Ctx, secret, metav1.UpdateOptions{})
	s.Want("type", apierrors.IsInvalid, err)
	l, err := c.List(s.Ctx, metav1.ListOptions{FieldSelector: "type=Opaque"})
	s.Record("list", l, err)
}

func bind(s *Session) {
	s.createPod(MakePod("a"))
	binding := func(pod, node string) *corev1.Binding {
		return &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: pod, Annotations: map[string]string{"by": "test"}}, Target: corev1.ObjectReference{Kind: "Node", Name: node}}
	}
	s.Must(s.Pods().Bind(s.Ctx, binding("a", "n1"), metav1.CreateOptions{}))
	p, err := s.Pods().Get(s.Ctx, "a", metav1.GetOptions{})
	s.Record("bound", p, err)
	s.That(p.Spec.NodeName == "n1", "bound to %q", p.Spec.NodeName)
	s.Want("again", apierrors.IsConflict, s.Pods().Bind(s.Ctx, binding("a", "n2"), metav1.CreateOptions{}))
	s.Want("missing", apierrors.IsNotFound, s.Pods().Bind(s.Ctx, binding("b", "n1"), metav1.CreateOptions{}))
	s.Want("no target", anyError, s.Pods().Bind(s.Ctx, &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, metav1.CreateOptions{}))
	s.Want("no name", anyError, s.Pods().Bind(s.Ctx, binding("", "n1"), metav1.CreateOptions{}))
	elsewhere := binding("a", "n1")
	elsewhere.Namespace = "elsewhere"
	s.RecordError("elsewhere", s.Pods().Bind(s.Ctx, elsewhere, metav1.CreateOptions{}))
	other := s.createPod(MakePod("c"))
	wrong := binding("c", "n1")
	wrong.UID = "99999999-9999-9999-9999-999999999999"
	s.Want("other uid", apierrors.IsConflict, s.Pods().Bind(s.Ctx, wrong, metav1.CreateOptions{}))
	wrong.UID = other.UID
	s.Must(s.Pods().Bind(s.Ctx, wrong, metav1.CreateOptions{}))
	s.createPod(MakePod("d"))
	s.Must(s.Pods().Bind(s.Ctx, binding("d", "n1"), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}))
	p, err = s.Pods().Get(s.Ctx, "d", metav1.GetOptions{})
	s.Must(err)
	s.That(p.Spec.NodeName == "", "dry run bound the pod")
}

// otherClients uses what a client may leave to the plain HTTP client.
func otherClients(s *Session) {
	version, err := s.Discovery().ServerVersion()
	s.Must(err)
	s.That(version.Major != "", "no version")
	q, err := s.CoreV1().ResourceQuotas(s.Namespace).List(s.Ctx, metav1.ListOptions{})
	s.Record("quotas", q, err)
	p := s.createPod(MakePod("a"))
	p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
		Name: "debug", Image: "busybox", ImagePullPolicy: corev1.PullIfNotPresent, TerminationMessagePolicy: corev1.TerminationMessageReadFile}}}
	p, err = s.Pods().UpdateEphemeralContainers(s.Ctx, "a", p, metav1.UpdateOptions{})
	s.Record("ephemeral containers", p, err)
	raw, err := s.CoreV1().RESTClient().Get().Namespace(s.Namespace).Resource("pods").Name("a").DoRaw(s.Ctx)
	s.Must(err)
	s.That(len(raw) > 0, "no raw answer")
	s.RecordText("kinds", fmt.Sprintf("%v", p.TypeMeta))
}
