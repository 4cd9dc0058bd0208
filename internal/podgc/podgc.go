// Package podgc deletes the oldest pods that have ended once there are more of
// them than a threshold, as kube-controller-manager's
// --terminated-pod-gc-threshold has it.
//
// Upstream's collector looks every 20 s, and then begins all deletions at once: at
// a thousand pods a second there are tens of thousands. This one acts on the pod
// that is one too many, and costs what has changed. What else upstream's does,
// for pods whose node is gone, is left to it.
package podgc

import (
	"cmp"
	"context"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	upstream "k8s.io/kubernetes/pkg/controller/podgc/metrics"

	"errand.dev/errand/internal/indexheap"
)

// DefaultThreshold is how many ended pods upstream keeps unless told otherwise.
const DefaultThreshold = 12_500

// deletions is how many pods are deleted at once: writes that go to disk together cost one fsync. It is twice as many as
// the Job engine's of one kind, so that deleting keeps pace with creating.
const deletions = 64

// Collector deletes ended pods. Make it with New.
type Collector struct {
	client    kubernetes.Interface
	pods      cache.SharedIndexInformer
	threshold int
	queue     workqueue.TypedRateLimitingInterface[identity]

	mu sync.Mutex
	// kept are those of ended whose deletion nobody has asked for.
	kept *indexheap.Heap[*ended]
	// ended has all pods that have ended and that nobody has begun to delete.
	ended map[types.UID]*ended
}

type identity struct {
	namespace, name string
	uid             types.UID
}

// New makes a collector that keeps as many ended pods as threshold says; 0 or less is all of them.
func New(client kubernetes.Interface, pods coreinformers.PodInformer, threshold int) (*Collector, error) {
	upstream.RegisterMetrics()
	c := &Collector{
		client: client, pods: pods.Informer(), threshold: threshold,
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[identity]()),
		kept:  indexheap.New(goesBefore),
		ended: map[types.UID]*ended{},
	}
	if threshold <= 0 {
		return c, nil
	}
	_, err := c.pods.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    c.observe,
		UpdateFunc: func(_, obj any) { c.observe(obj) },
		DeleteFunc: c.gone,
	})
	if err != nil {
		return nil, fmt.Errorf("listen to pods: %w", err)
	}
	return c, nil
}

// Run deletes pods until ctx ends. The informer must have been started.
func (c *Collector) Run(ctx context.Context) {
	var wg sync.WaitGroup
	for range deletions {
		wg.Go(func() {
			for c.deleteNext(ctx) {
			}
		})
	}
	<-ctx.Done()
	c.queue.ShutDown()
	wg.Wait()
}

// observe takes in a version of a pod.
func (c *Collector) observe(obj any) {
	pod := obj.(*corev1.Pod)
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.ended[pod.UID]
	switch {
	case !hasEnded(pod) || pod.DeletionTimestamp != nil:
		c.forget(pod.UID)
		return
	case known != nil:
		return
	}
	e := &ended{
		identity: identity{pod.Namespace, pod.Name, pod.UID},
		created:  pod.CreationTimestamp.UnixNano(),
		evicted:  pod.Status.Phase == corev1.PodFailed && pod.Status.Reason == evicted,
	}
	c.ended[pod.UID] = e
	c.kept.Put(e)
	for c.kept.Len() > c.threshold {
		c.queue.Add(c.kept.Pop().identity)
	}
}

func (c *Collector) gone(obj any) {
	if unknown, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = unknown.Obj
	}
	pod := obj.(*corev1.Pod)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forget(pod.UID)
}

// forget takes a pod out of those that have ended. c.mu is held.
func (c *Collector) forget(uid types.UID) {
	e := c.ended[uid]
	if e == nil {
		return
	}
	delete(c.ended, uid)
	c.kept.Remove(e)
}

// deleteNext deletes the pod that is first in the queue; it returns false once ctx has ended, however many are left.
func (c *Collector) deleteNext(ctx context.Context) bool {
	pod, shutdown := c.queue.Get()
	if shutdown {
		return false
	}
	defer c.queue.Done(pod)
	if ctx.Err() != nil {
		return false
	}
	upstream.DeletingPodsTotal.WithLabelValues(pod.namespace, upstream.PodGCReasonTerminated).Inc()
	err := c.client.CoreV1().Pods(pod.namespace).Delete(ctx, pod.name, metav1.DeleteOptions{
		GracePeriodSeconds: new(int64),
		Preconditions:      metav1.NewUIDPreconditions(string(pod.uid)),
	})
	// A conflict is another pod under that name.
	if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		c.queue.Forget(pod)
		return true
	}
	if ctx.Err() == nil {
		upstream.DeletingPodsErrorTotal.WithLabelValues(pod.namespace, upstream.PodGCReasonTerminated).Inc()
		klog.FromContext(ctx).Error(err, "Could not delete a pod that has ended; trying again", "pod", klog.KRef(pod.namespace, pod.name))
		c.queue.AddRateLimited(pod)
	}
	return true
}

// hasEnded reports whether a pod's containers have ended for good.
func hasEnded(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// evicted is the reason of a pod that its node has evicted.
const evicted = "Evicted"

// ended is a pod that has ended.
type ended struct {
	identity
	indexheap.Place
	evicted bool
	created int64 // in nanoseconds since 1970
}

// goesBefore orders pods that are kept: evicted ones go first, for nobody asks for
// their logs, then the oldest.
func goesBefore(a, b *ended) bool {
	if a.evicted != b.evicted {
		return a.evicted
	}
	return cmp.Or(cmp.Compare(a.created, b.created), cmp.Compare(a.name, b.name), cmp.Compare(a.namespace, b.namespace)) < 0
}
