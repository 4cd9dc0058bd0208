package controllers

import (
	"context"
	"fmt"

	"k8s.io/client-go/dynamic"
	appsv1informers "k8s.io/client-go/informers/apps/v1"
	corev1informers "k8s.io/client-go/informers/core/v1"
	appsv1listers "k8s.io/client-go/listers/apps/v1"
	corev1listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/scale"
	"k8s.io/client-go/tools/cache"
	"k8s.io/kubernetes/pkg/controller/disruption"
)

// disruptions keeps the status of PodDisruptionBudgets, without which no pod
// of theirs can be evicted, and withdraws the DisruptionTarget condition of
// pods that were announced to go and stayed.
func disruptions(ctx context.Context, d *dependencies) (func(context.Context), error) {
	scales, err := scale.NewForConfig(d.REST, d.mapper, dynamic.LegacyAPIPathResolverFunc, scale.NewDiscoveryScaleKindResolver(d.discovery))
	if err != nil {
		return nil, fmt.Errorf("scale client: %w", err)
	}
	none := notServed{}
	// It has its handlers called before it is whole, if the informers have something already: then it panics.
	pods := &latePods{PodInformer: d.Informers.Core().V1().Pods()}
	c := disruption.NewDisruptionController(ctx,
		pods, d.Informers.Policy().V1().PodDisruptionBudgets(),
		noReplicationControllers{none}, noReplicaSets{none}, noDeployments{none}, noStatefulSets{none},
		d.client, d.mapper, scales, d.discovery)
	if err := pods.listen(); err != nil {
		return nil, err
	}
	return func(ctx context.Context) { c.Run(ctx, disruptionWorkers) }, nil
}

// latePods is the informer of pods for a controller that mustn't hear of any before it is whole: handlers are
// added by listen.
type latePods struct {
	corev1informers.PodInformer
	handlers []cache.ResourceEventHandler
}

// Informer implements corev1informers.PodInformer.
func (l *latePods) Informer() cache.SharedIndexInformer {
	return lateInformer{SharedIndexInformer: l.PodInformer.Informer(), late: l}
}

func (l *latePods) listen() error {
	for _, h := range l.handlers {
		if _, err := l.PodInformer.Informer().AddEventHandler(h); err != nil {
			return fmt.Errorf("listen to pods: %w", err)
		}
	}
	return nil
}

type lateInformer struct {
	cache.SharedIndexInformer
	late *latePods
}

// AddEventHandler implements cache.SharedIndexInformer. Its registration is the informer's: the handler has none yet.
func (i lateInformer) AddEventHandler(h cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
	i.late.handlers = append(i.late.handlers, h)
	return i.SharedIndexInformer, nil
}

// notServed stands for the informer of a kind that this API hasn't: a real one
// would watch in vain for ever. It has all objects of that kind from the start.
type notServed struct{ cache.SharedIndexInformer }

// HasSynced implements cache.SharedIndexInformer.
func (notServed) HasSynced() bool { return true }

// Informer implements the informers of all kinds.
func (n notServed) Informer() cache.SharedIndexInformer { return n }

func empty() cache.Indexer { return cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{}) }

type noReplicationControllers struct{ notServed }

var _ corev1informers.ReplicationControllerInformer = noReplicationControllers{}

// Lister implements corev1informers.ReplicationControllerInformer.
func (noReplicationControllers) Lister() corev1listers.ReplicationControllerLister {
	return corev1listers.NewReplicationControllerLister(empty())
}

type noReplicaSets struct{ notServed }

var _ appsv1informers.ReplicaSetInformer = noReplicaSets{}

// Lister implements appsv1informers.ReplicaSetInformer.
func (noReplicaSets) Lister() appsv1listers.ReplicaSetLister {
	return appsv1listers.NewReplicaSetLister(empty())
}

type noDeployments struct{ notServed }

var _ appsv1informers.DeploymentInformer = noDeployments{}

// Lister implements appsv1informers.DeploymentInformer.
func (noDeployments) Lister() appsv1listers.DeploymentLister {
	return appsv1listers.NewDeploymentLister(empty())
}

type noStatefulSets struct{ notServed }

var _ appsv1informers.StatefulSetInformer = noStatefulSets{}

// Lister implements appsv1informers.StatefulSetInformer.
func (noStatefulSets) Lister() appsv1listers.StatefulSetLister {
	return appsv1listers.NewStatefulSetLister(empty())
}
