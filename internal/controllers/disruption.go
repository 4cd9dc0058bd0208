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
	c := disruption.NewDisruptionController(ctx,
		d.Informers.Core().V1().Pods(), d.Informers.Policy().V1().PodDisruptionBudgets(),
		noReplicationControllers{none}, noReplicaSets{none}, noDeployments{none}, noStatefulSets{none},
		d.client, d.mapper, scales, d.discovery)
	return func(ctx context.Context) { c.Run(ctx, disruptionWorkers) }, nil
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
