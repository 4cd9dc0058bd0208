package apiserver

import (
	"context"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	schedulingapiv1 "k8s.io/kubernetes/pkg/apis/scheduling/v1"
)

// bootstrapWorkers write at once: etcd puts the writes that wait for its disk
// into one fsync, so that many cost hardly more than one.
const bootstrapWorkers = 16

// task is one thing that a fresh server must hold. It may run again.
type task func(context.Context) error

// systemNamespaces exist in every Kubernetes.
func systemNamespaces() []string {
	return []string{
		corev1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic, corev1.NamespaceNodeLease,
	}
}

// bootstrap writes what every Kubernetes holds from the start. The namespaces
// come first: the rest stands in them, or is noted on one.
func bootstrap(ctx context.Context, seed *seeder, client kubernetes.Interface, service task, provisioner string) error {
	var namespaces []task
	others := []task{service}
	for _, name := range systemNamespaces() {
		namespaces = append(namespaces, seed.ensure(
			corev1.SchemeGroupVersion.WithResource("namespaces"),
			&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, nil))
	}
	for _, class := range schedulingapiv1.SystemPriorityClasses() {
		others = append(others, seed.ensure(schedulingv1.SchemeGroupVersion.WithResource("priorityclasses"), class, nil))
	}
	others = append(others, rbacPolicy(seed, client)...)
	if provisioner != "" {
		others = append(others, seedStandardClass(seed, client, provisioner))
	}
	for _, tasks := range [][]task{namespaces, others} {
		if err := runAll(ctx, tasks); err != nil {
			return err
		}
	}
	return nil
}

func runAll(ctx context.Context, tasks []task) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(bootstrapWorkers)
	for _, run := range tasks {
		group.Go(func() error { return run(ctx) })
	}
	return group.Wait()
}

// keepNamespaces makes a system namespace anew when somebody deleted it:
// admission guards all but kube-node-lease.
func keepNamespaces(ctx context.Context, factory informers.SharedInformerFactory, client kubernetes.Interface) error {
	system := map[string]bool{}
	for _, name := range systemNamespaces() {
		system[name] = true
	}
	_, err := factory.Core().V1().Namespaces().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		DeleteFunc: func(obj any) {
			key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(obj)
			if err != nil || !system[key] || ctx.Err() != nil {
				return
			}
			_, err = client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: key}}, metav1.CreateOptions{})
			if err != nil && !apierrors.IsAlreadyExists(err) {
				klog.FromContext(ctx).Error(err, "A system namespace couldn't be made anew", "namespace", key)
			}
		},
	})
	return err
}
