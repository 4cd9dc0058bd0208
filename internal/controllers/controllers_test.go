package controllers_test

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/go-logr/logr"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"

	"errand.dev/errand/internal/apiserver"
	"errand.dev/errand/internal/controllers"
)

// patience bounds every wait: only a hang meets it.
const patience = time.Minute

// start runs the controllers on an API of the test's own, as without a node.
func start(t *testing.T) kubernetes.Interface {
	t.Helper()
	klog.SetLogger(logr.Discard())
	dir, err := os.MkdirTemp("/tmp", "e")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	ctx, cancel := context.WithCancel(t.Context())
	api, err := apiserver.New(ctx, apiserver.Config{DataDir: dir, RuntimeDir: dir, Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 2)
	go func() { ended <- api.Run(ctx) }()
	select {
	case <-api.Ready():
	case err := <-ended:
		t.Fatal(err)
	}
	set, err := controllers.New(ctx, controllers.Config{
		ClientFor: func(account string) (kubernetes.Interface, error) {
			return api.ClientAs(serviceaccount.UserInfo("kube-system", account, ""), 0)
		},
		Informers: api.Informers(), REST: api.DirectConfig(), RootCA: api.CA(),
	})
	if err != nil {
		t.Fatal(err)
	}
	api.Informers().StartWithContext(ctx)
	go func() { ended <- set.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	})
	return api.Client()
}

func TestANamespaceIsFurnishedAndCleared(t *testing.T) {
	client := start(t)
	if _, err := client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	until(t, client.CoreV1().ServiceAccounts("ns"), "default", func(*corev1.ServiceAccount) bool { return true })
	until(t, client.CoreV1().ConfigMaps("ns"), "kube-root-ca.crt", func(c *corev1.ConfigMap) bool { return c.Data["ca.crt"] != "" })

	if err := client.CoreV1().Namespaces().Delete(t.Context(), "ns", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	untilGone(t, client.CoreV1().Namespaces(), "ns", func() error {
		_, err := client.CoreV1().Namespaces().Get(t.Context(), "ns", metav1.GetOptions{})
		return err
	})
}

func TestOwnedObjectsGo(t *testing.T) {
	client := start(t)
	maps := client.CoreV1().ConfigMaps("default")
	owner, err := maps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "owner"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	owned := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "owned", OwnerReferences: []metav1.OwnerReference{ownedBy(owner)}}}
	if _, err := client.CoreV1().Secrets("default").Create(t.Context(), owned, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := maps.Delete(t.Context(), "owner", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	untilGone(t, client.CoreV1().Secrets("default"), "owned", func() error {
		_, err := client.CoreV1().Secrets("default").Get(t.Context(), "owned", metav1.GetOptions{})
		return err
	})
}

func ownedBy(c *corev1.ConfigMap) metav1.OwnerReference {
	return metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: c.Name, UID: c.UID}
}

// A quota counts what there is, gives back what goes, and holds: also for kinds
// that no component of errand's watches.
func TestQuota(t *testing.T) {
	client := start(t)
	if _, err := client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	secrets, quotas := client.CoreV1().Secrets("ns"), client.CoreV1().ResourceQuotas("ns")
	create := func(name string) error {
		_, err := secrets.Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		return err
	}
	if err := create("a"); err != nil {
		t.Fatal(err)
	}
	hard := corev1.ResourceList{"secrets": resource.MustParse("2"), "pods": resource.MustParse("3"), "count/jobs.batch": resource.MustParse("1"), "replicationcontrollers": resource.MustParse("1")}
	if _, err := quotas.Create(t.Context(), &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "q"}, Spec: corev1.ResourceQuotaSpec{Hard: hard}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	used := func(n string) {
		t.Helper()
		until(t, quotas, "q", func(q *corev1.ResourceQuota) bool {
			got, ok := q.Status.Used["secrets"]
			return ok && got.String() == n
		})
	}
	used("1")
	if err := create("b"); err != nil {
		t.Fatal(err)
	}
	// Upstream's admission and controller each go by what they have seen so far, and agree in time rather than at once.
	insist(t, "a secret too many is refused", func() error {
		if err := create("c"); err == nil {
			return errors.Join(errors.New("it was created"), secrets.Delete(t.Context(), "c", metav1.DeleteOptions{}))
		} else if !apierrors.IsForbidden(err) {
			t.Fatal(err)
		}
		return nil
	})
	if err := secrets.Delete(t.Context(), "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	used("1")
	insist(t, "there is room for another", func() error { return create("c") })
}

// insist tries until it succeeds.
func insist(t *testing.T, what string, try func() error) {
	t.Helper()
	err := try()
	for deadline := time.Now().Add(patience); err != nil && time.Now().Before(deadline); {
		err = try()
	}
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// watcher is a typed client of one kind.
type watcher interface {
	Watch(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error)
}

// until watches an object until ok says so.
func until[T any](t *testing.T, client watcher, name string, ok func(T) bool) {
	t.Helper()
	w := begin(t, client, name)
	for ev := range w.ResultChan() {
		if obj, is := ev.Object.(T); is && ev.Type != watch.Deleted && ok(obj) {
			return
		}
	}
	t.Fatalf("%s isn't as it should be after %v", name, patience)
}

// untilGone watches until there is no such object.
func untilGone(t *testing.T, client watcher, name string, get func() error) {
	t.Helper()
	w := begin(t, client, name)
	if apierrors.IsNotFound(get()) {
		return
	}
	for ev := range w.ResultChan() {
		if ev.Type == watch.Deleted {
			return
		}
	}
	t.Fatalf("%s is still there after %v", name, patience)
}

// begin watches an object, from what it is now, until the test's patience ends.
func begin(t *testing.T, client watcher, name string) watch.Interface {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	w, err := client.Watch(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String()})
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.Stop()
		cancel()
	})
	return w
}

// A budget's status follows its pods. One that hangs on the scale of a Job says
// that there is none, as in any cluster, and allows nothing.
func TestDisruptionBudget(t *testing.T) {
	client := start(t)
	running(t, client, "a", nil)
	budget(t, client, "healthy", policyv1.PodDisruptionBudgetSpec{MinAvailable: new(intstr.FromInt32(1))})
	budgets := client.PolicyV1().PodDisruptionBudgets("default")
	allows := func(n int32) func(*policyv1.PodDisruptionBudget) bool {
		return func(b *policyv1.PodDisruptionBudget) bool {
			return b.Status.ObservedGeneration == b.Generation && b.Status.DisruptionsAllowed == n
		}
	}
	until(t, budgets, "healthy", allows(0))
	running(t, client, "b", nil)
	until(t, budgets, "healthy", allows(1))
	if err := client.CoreV1().Pods("default").EvictV1(t.Context(), &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: "b"}}); err != nil {
		t.Fatal(err)
	}
	until(t, budgets, "healthy", allows(0))
	if err := budgets.Delete(t.Context(), "healthy", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}

	job, err := client.BatchV1().Jobs("default").Create(t.Context(), &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "j"}, Spec: batchv1.JobSpec{
		Suspend: new(true), Template: corev1.PodTemplateSpec{Spec: podSpec()}}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	running(t, client, "c", metav1.NewControllerRef(job, batchv1.SchemeGroupVersion.WithKind("Job")))
	budget(t, client, "scaled", policyv1.PodDisruptionBudgetSpec{MaxUnavailable: new(intstr.FromInt32(1))})
	until(t, budgets, "scaled", func(b *policyv1.PodDisruptionBudget) bool {
		c := meta.FindStatusCondition(b.Status.Conditions, policyv1.DisruptionAllowedCondition)
		return c != nil && c.Reason == policyv1.SyncFailedReason && c.Message == "jobs.batch does not implement the scale subresource" &&
			b.Status.DisruptionsAllowed == 0
	})
}

func budget(t *testing.T, client kubernetes.Interface, name string, spec policyv1.PodDisruptionBudgetSpec) {
	t.Helper()
	spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "guarded"}}
	b := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}
	if _, err := client.PolicyV1().PodDisruptionBudgets("default").Create(t.Context(), b, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func podSpec() corev1.PodSpec {
	return corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "busybox"}}, RestartPolicy: corev1.RestartPolicyNever}
}

// running makes a pod that a node says is ready.
func running(t *testing.T, client kubernetes.Interface, name string, owner *metav1.OwnerReference) {
	t.Helper()
	until(t, client.CoreV1().ServiceAccounts("default"), "default", func(*corev1.ServiceAccount) bool { return true })
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": "guarded"}}, Spec: podSpec()}
	pod.Spec.NodeName = "n"
	if owner != nil {
		pod.OwnerReferences = []metav1.OwnerReference{*owner}
	}
	pod, err := client.CoreV1().Pods("default").Create(t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pod.Status.Phase = corev1.PodRunning
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	if _, err := client.CoreV1().Pods("default").UpdateStatus(t.Context(), pod, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}
