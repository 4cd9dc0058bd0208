package apiserver

import (
	"context"
	"fmt"

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
// come first: the rest stands in them.
func bootstrap(ctx context.Context, client kubernetes.Interface) error {
	var namespaces, others []task
	for _, name := range systemNamespaces() {
		namespaces = append(namespaces, namespaceTask(client, name))
	}
	for _, class := range schedulingapiv1.SystemPriorityClasses() {
		others = append(others, priorityClassTask(client, class))
	}
	others = append(others, rbacPolicy(client)...)
	for _, tasks := range [][]task{namespaces, others} {
		if err := runAll(ctx, tasks); err != nil {
			return fmt.Errorf("write the default objects: %w", err)
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

func namespaceTask(client kubernetes.Interface, name string) task {
	return func(ctx context.Context) error {
		namespaces := client.CoreV1().Namespaces()
		_, err := namespaces.Get(ctx, name, metav1.GetOptions{})
		if !apierrors.IsNotFound(err) {
			return err
		}
		_, err = namespaces.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		return ignoreExisting(err)
	}
}

func priorityClassTask(client kubernetes.Interface, class *schedulingv1.PriorityClass) task {
	return func(ctx context.Context) error {
		classes := client.SchedulingV1().PriorityClasses()
		_, err := classes.Get(ctx, class.Name, metav1.GetOptions{})
		if !apierrors.IsNotFound(err) {
			return err
		}
		_, err = classes.Create(ctx, class, metav1.CreateOptions{})
		return ignoreExisting(err)
	}
}

func ignoreExisting(err error) error {
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
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
			if err := namespaceTask(client, key)(ctx); err != nil {
				klog.FromContext(ctx).Error(err, "A system namespace couldn't be made anew", "namespace", key)
			}
		},
	})
	return err
}
