package clusterengine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	kyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/ptr"
)

const (
	deployed       = "../../deploy/controller"
	serviceAccount = "system:serviceaccount:errand-system:errand-controller"
)

// manifest reads the objects in a file of deploy/controller; an unknown field
// is an error.
func manifest(t *testing.T, name string) []runtime.Object {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(deployed, name))
	if err != nil {
		t.Fatal(err)
	}
	decoder := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	var objects []runtime.Object
	for r := kyaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(b))); ; {
		doc := make([]byte, len(b))
		n, err := r.Read(doc)
		if errors.Is(err, io.EOF) {
			return objects
		} else if err != nil {
			t.Fatal(err)
		}
		obj, _, err := decoder.Decode(doc[:n], nil, nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		objects = append(objects, obj)
	}
}

// grant gives the service account the rights of deploy/controller, as edit
// leaves them, until the test's end: where only is set, in that namespace alone.
func grant(t *testing.T, only string, edit func(*rbacv1.PolicyRule)) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	rbac, opts := cluster.admin.RbacV1(), metav1.DeleteOptions{}
	check := func(err error, undo func() error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := undo(); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() {
		if err := cluster.admin.CoordinationV1().Leases("errand-system").Delete(ctx, "errand-controller", opts); err != nil {
			t.Error(err)
		}
	})
	for _, file := range []string{"namespace.yaml", "rbac.yaml"} {
		for _, obj := range manifest(t, file) {
			switch o := obj.(type) {
			case *corev1.Namespace:
				if _, err := cluster.admin.CoreV1().Namespaces().Create(ctx, o, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
					t.Fatal(err)
				}
			case *rbacv1.ClusterRole:
				for i := range o.Rules {
					edit(&o.Rules[i])
				}
				_, err := rbac.ClusterRoles().Create(ctx, o, metav1.CreateOptions{})
				check(err, func() error { return rbac.ClusterRoles().Delete(ctx, o.Name, opts) })
			case *rbacv1.ClusterRoleBinding:
				if only != "" {
					b := &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: o.Name}, RoleRef: o.RoleRef, Subjects: o.Subjects}
					_, err := rbac.RoleBindings(only).Create(ctx, b, metav1.CreateOptions{})
					check(err, func() error { return rbac.RoleBindings(only).Delete(ctx, b.Name, opts) })
					continue
				}
				_, err := rbac.ClusterRoleBindings().Create(ctx, o, metav1.CreateOptions{})
				check(err, func() error { return rbac.ClusterRoleBindings().Delete(ctx, o.Name, opts) })
			case *rbacv1.Role:
				for i := range o.Rules {
					edit(&o.Rules[i])
				}
				_, err := rbac.Roles(o.Namespace).Create(ctx, o, metav1.CreateOptions{})
				check(err, func() error { return rbac.Roles(o.Namespace).Delete(ctx, o.Name, opts) })
			case *rbacv1.RoleBinding:
				_, err := rbac.RoleBindings(o.Namespace).Create(ctx, o, metav1.CreateOptions{})
				check(err, func() error { return rbac.RoleBindings(o.Namespace).Delete(ctx, o.Name, opts) })
			default:
				t.Fatalf("%s has a %T, which this test doesn't know", file, o)
			}
		}
	}
}

// runAsDeployed runs the controller as the service account until the test's
// end, and notes its requests. It returns once the controller acts.
func runAsDeployed(t *testing.T, only string) *requests {
	t.Helper()
	kubeconfig, err := clientcmd.LoadFromFile(cluster.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range kubeconfig.AuthInfos {
		u.Impersonate, u.ImpersonateGroups = serviceAccount, []string{"system:serviceaccounts", "system:authenticated"}
	}
	o := DefaultOptions()
	o.Kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*kubeconfig, o.Kubeconfig); err != nil {
		t.Fatal(err)
	}
	o.MetricsBindAddress = noAddress
	o.Namespace = only
	o.Lease.Namespace, o.Lease.Name = "errand-system", "errand-controller" // as in the pods there
	if err := o.Validate(); err != nil {
		t.Fatal(err)
	}
	c, err := o.Complete()
	if err != nil {
		t.Fatal(err)
	}
	made := &requests{made: sets.New[string]()}
	c.rest.Wrap(func(next http.RoundTripper) http.RoundTripper { return noting{made, next} })
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.run(ctx, t.Output(), nil) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	w, err := cluster.admin.CoordinationV1().Leases(o.Lease.Namespace).Watch(t.Context(), metav1.ListOptions{})
	await(t, w, err, func(l *coordinationv1.Lease) bool { return ptr.Deref(l.Spec.HolderIdentity, "") != "" })
	return made
}

// requests are those made, as "verb resource".
type requests struct {
	mu   sync.Mutex
	made sets.Set[string]
}

type noting struct {
	*requests
	next http.RoundTripper
}

var parser = request.RequestInfoFactory{APIPrefixes: sets.NewString("api", "apis"), GrouplessAPIPrefixes: sets.NewString("api")}

func (n noting) RoundTrip(r *http.Request) (*http.Response, error) {
	info, err := parser.NewRequestInfo(r)
	if err != nil {
		return nil, err
	}
	if info.IsResourceRequest { // everybody may ask for the version
		n.mu.Lock()
		n.made.Insert(right(info.Verb, info.APIGroup, info.Resource, info.Subresource))
		n.mu.Unlock()
	}
	return n.next.RoundTrip(r)
}

func right(verb, group, resource, subresource string) string {
	if subresource != "" {
		resource += "/" + subresource
	}
	if group != "" {
		resource += "." + group
	}
	return verb + " " + resource
}

// rare rights are needed, but not on a good day.
var rare = map[string]string{
	"list jobs.batch":                 "of API servers that don't stream lists",
	"list pods":                       "the same, and where a cache is behind",
	"list leases.coordination.k8s.io": "the same",
	"get pods":                        "after a creation whose answer was lost",
	"update jobs/finalizers.batch":    "asked for by an admission plugin",
}

// With exactly the rights of deploy/controller a Job has the whole of its life,
// and none of those rights goes unused.
func TestDeployedRightsAreEnoughAndNeeded(t *testing.T) {
	granted := sets.New[string]()
	grant(t, "", func(r *rbacv1.PolicyRule) {
		for _, resource := range r.Resources {
			resource, sub, _ := strings.Cut(resource, "/")
			for _, verb := range r.Verbs {
				granted.Insert(right(verb, r.APIGroups[0], resource, sub))
			}
		}
	})
	made := runAsDeployed(t, "")
	ns := namespaceFor(t)
	live(t, ns)

	made.mu.Lock()
	defer made.mu.Unlock()
	for _, unused := range sets.List(granted.Difference(made.made)) {
		if rare[unused] == "" {
			t.Errorf("the right to %s isn't used", unused)
		}
	}
	for _, lacking := range sets.List(made.made.Difference(granted)) {
		t.Errorf("the right to %s lacks", lacking)
	}
}

// live takes a Job through suspension, resumption, suspension while a pod runs,
// and completion to the end of its TTL.
func live(t *testing.T, ns string) {
	t.Helper()
	create(t, ns, func(j *batchv1.Job) { j.Spec.Suspend, j.Spec.TTLSecondsAfterFinished = ptr.To(true), ptr.To(int32(0)) })
	awaitEvent(t, ns, "Suspended", 1)
	suspend(t, ns, false)
	awaitEvent(t, ns, "Resumed", 1)
	suspend(t, ns, true)
	awaitEvent(t, ns, "Suspended", 2)
	suspend(t, ns, false)
	succeed(t, ns)
	// There is no garbage collector here to delete it for good.
	awaitJob(t, ns, func(j *batchv1.Job) bool { return j.DeletionTimestamp != nil })
	awaitEvent(t, ns, "Completed", 1)
}

// Without the right to create pods a Job gets nowhere, and its events say why.
func TestALackingRightIsSaid(t *testing.T) {
	grant(t, "", func(r *rbacv1.PolicyRule) {
		r.Verbs = slices.DeleteFunc(r.Verbs, func(verb string) bool { return verb == "create" && slices.Contains(r.Resources, "pods") })
	})
	runAsDeployed(t, "")
	ns := namespaceFor(t)
	create(t, ns, func(*batchv1.Job) {})
	message := awaitEvent(t, ns, "FailedCreate", 1)
	if want := `cannot create resource "pods"`; !strings.Contains(message, want) || !strings.Contains(message, serviceAccount) {
		t.Errorf("the event says %q, want %q", message, want)
	}
}

// For one namespace, rights in that namespace do.
func TestRightsInOneNamespace(t *testing.T) {
	ns := namespaceFor(t)
	grant(t, ns, func(*rbacv1.PolicyRule) {})
	runAsDeployed(t, ns)
	create(t, ns, func(*batchv1.Job) {})
	succeed(t, ns)
	awaitEvent(t, ns, "Completed", 1)
}

// create makes the Job j of the namespace, for errand controller to run.
func create(t *testing.T, ns string, edit func(*batchv1.Job)) {
	t.Helper()
	_, err := cluster.admin.CoreV1().ServiceAccounts(ns).Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "j"}, Spec: batchv1.JobSpec{
		ManagedBy: ptr.To(ManagedByErrand),
		Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyNever,
			Containers:    []corev1.Container{{Name: "c", Image: "c"}},
		}},
	}}
	edit(j)
	if _, err := cluster.admin.BatchV1().Jobs(ns).Create(t.Context(), j, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func suspend(t *testing.T, ns string, to bool) {
	t.Helper()
	patch := fmt.Appendf(nil, `{"spec":{"suspend":%t}}`, to)
	if _, err := cluster.admin.BatchV1().Jobs(ns).Patch(t.Context(), "j", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
}

// succeed plays the node: the next pod of the namespace succeeds.
func succeed(t *testing.T, ns string) {
	t.Helper()
	pods := cluster.admin.CoreV1().Pods(ns)
	w, err := pods.Watch(t.Context(), metav1.ListOptions{})
	pod := await(t, w, err, func(p *corev1.Pod) bool { return p.DeletionTimestamp == nil })
	pod.Status.Phase = corev1.PodSucceeded
	if _, err := pods.UpdateStatus(t.Context(), pod, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// awaitEvent waits until something has happened so often, and returns what the
// event says.
func awaitEvent(t *testing.T, ns, reason string, times int32) string {
	t.Helper()
	w, err := cluster.admin.CoreV1().Events(ns).Watch(t.Context(), metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("reason", reason).String()})
	return await(t, w, err, func(e *corev1.Event) bool { return e.Count >= times }).Message
}

func awaitJob(t *testing.T, ns string, ok func(*batchv1.Job) bool) {
	t.Helper()
	w, err := cluster.admin.BatchV1().Jobs(ns).Watch(t.Context(), metav1.ListOptions{})
	await(t, w, err, ok)
}

// await returns the first object that a watch shows and that ok takes. The watch
// begins with what is there already.
func await[T any](t *testing.T, w watch.Interface, err error, ok func(*T) bool) *T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	limit := time.After(patience)
	for {
		select {
		case e := <-w.ResultChan():
			if obj, is := e.Object.(any).(*T); is && e.Type != watch.Deleted && ok(obj) {
				return obj
			} else if !is {
				t.Fatalf("the watch ended with %v", e)
			}
		case <-limit:
			t.Fatalf("no %T came that was waited for", *new(T))
		}
	}
}
