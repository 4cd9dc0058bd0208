package controllers

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	quota "k8s.io/apiserver/pkg/quota/v1"
	"k8s.io/apiserver/pkg/quota/v1/generic"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controller"
	"k8s.io/kubernetes/pkg/controller/certificates/rootcacertpublisher"
	"k8s.io/kubernetes/pkg/controller/clusterroleaggregation"
	"k8s.io/kubernetes/pkg/controller/cronjob"
	"k8s.io/kubernetes/pkg/controller/garbagecollector"
	"k8s.io/kubernetes/pkg/controller/namespace"
	upstreampodgc "k8s.io/kubernetes/pkg/controller/podgc"
	"k8s.io/kubernetes/pkg/controller/resourcequota"
	"k8s.io/kubernetes/pkg/controller/serviceaccount"
	"k8s.io/kubernetes/pkg/quota/v1/evaluator/core"
	"k8s.io/kubernetes/pkg/quota/v1/install"

	"errand.dev/errand/internal/podgc"
)

// How much each does at once. Upstream's defaults serve thousands of nodes;
// these serve one machine without holding anything up.
const (
	namespaceWorkers  = 5
	collectorWorkers  = 5
	quotaWorkers      = 2
	cronJobWorkers    = 2
	aggregatorWorkers = 1
	disruptionWorkers = 2
	// namespaceResync and quotaResync are upstream's defaults.
	namespaceResync = 5 * time.Minute
	quotaResync     = 5 * time.Minute
	// collectorFirstSync bounds the wait for the garbage collector's view of
	// all kinds; after it, it works with what it has.
	collectorFirstSync = 30 * time.Second
)

func namespaces(ctx context.Context, d *dependencies) (func(context.Context), error) {
	c := namespace.NewNamespaceController(ctx, d.client, d.metadata,
		d.discovery.ServerPreferredNamespacedResources,
		d.Informers.Core().V1().Namespaces(), namespaceResync, v1.FinalizerKubernetes)
	return func(ctx context.Context) { c.Run(ctx, namespaceWorkers) }, nil
}

func serviceAccounts(ctx context.Context, d *dependencies) (func(context.Context), error) {
	c, err := serviceaccount.NewServiceAccountsController(klog.FromContext(ctx),
		d.Informers.Core().V1().ServiceAccounts(), d.Informers.Core().V1().Namespaces(),
		d.client, serviceaccount.DefaultServiceAccountsControllerOptions())
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) { c.Run(ctx, 1) }, nil
}

func rootCA(_ context.Context, d *dependencies) (func(context.Context), error) {
	c, err := rootcacertpublisher.NewPublisher(d.Informers.Core().V1().ConfigMaps(),
		d.Informers.Core().V1().Namespaces(), d.client, d.RootCA)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) { c.Run(ctx, 1) }, nil
}

func clusterRoleAggregation(_ context.Context, d *dependencies) (func(context.Context), error) {
	c := clusterroleaggregation.NewClusterRoleAggregation(d.Informers.Rbac().V1().ClusterRoles(), d.client.RbacV1())
	return func(ctx context.Context) { c.Run(ctx, aggregatorWorkers) }, nil
}

func garbageCollector(ctx context.Context, d *dependencies) (func(context.Context), error) {
	c, err := garbagecollector.NewGarbageCollector(ctx, d.client, d.metadata, d.mapper,
		garbagecollector.DefaultIgnoredResources(), d.graph, d.started)
	if err != nil {
		return nil, err
	}
	return both(
		func(ctx context.Context) { c.Run(ctx, collectorWorkers, collectorFirstSync) },
		func(ctx context.Context) { c.Sync(ctx, d.discovery, discoveryPeriod) },
	), nil
}

func resourceQuota(ctx context.Context, d *dependencies) (func(context.Context), error) {
	// Usage is counted from the informers that the graph starts.
	evaluators, err := core.NewEvaluators(generic.ListerFuncForResourceFunc(d.graph.ForResource), d.Informers, quotaKinds)
	if err != nil {
		return nil, fmt.Errorf("evaluators: %w", err)
	}
	evaluators = slices.DeleteFunc(evaluators, func(e quota.Evaluator) bool {
		// Upstream makes those of plain object counts without asking.
		return !quotaKinds(e.GroupResource().WithVersion(v1.SchemeGroupVersion.Version))
	})
	config := generic.NewConfiguration(evaluators, install.DefaultIgnoredResources())
	c, err := resourcequota.NewController(ctx, &resourcequota.ControllerOptions{
		QuotaClient:               d.client.CoreV1(),
		ResourceQuotaInformer:     d.Informers.Core().V1().ResourceQuotas(),
		ResyncPeriod:              controller.StaticResyncPeriodFunc(quotaResync),
		Registry:                  generic.NewRegistry(config.Evaluators()),
		DiscoveryFunc:             d.discovery.ServerPreferredNamespacedResources,
		IgnoredResourcesFunc:      config.IgnoredResources,
		InformersStarted:          d.started,
		InformerFactory:           d.graph,
		ReplenishmentResyncPeriod: controller.NoResyncPeriodFunc,
		UpdateFilter:              install.DefaultUpdateFilter(),
	})
	if err != nil {
		return nil, err
	}
	kinds := d.discovery.ServerPreferredNamespacedResources
	return both(
		func(ctx context.Context) { c.Run(ctx, quotaWorkers) },
		func(ctx context.Context) { c.Sync(ctx, kinds, discoveryPeriod) },
	), nil
}

// quotaKinds says which of the kinds that upstream has an evaluator for are
// served: an evaluator of another would watch in vain for ever.
func quotaKinds(r schema.GroupVersionResource) bool {
	return r.Group == v1.GroupName && r.Resource != "replicationcontrollers"
}

func cronJobs(ctx context.Context, d *dependencies) (func(context.Context), error) {
	c, err := cronjob.NewControllerV2(ctx, d.Informers.Batch().V1().Jobs(), d.Informers.Batch().V1().CronJobs(), d.client)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) { c.Run(ctx, cronJobWorkers) }, nil
}

func podGC(ctx context.Context, d *dependencies) (func(context.Context), error) {
	c, err := podgc.New(d.client, d.Informers.Core().V1().Pods(), d.TerminatedPodGCThreshold)
	if err != nil {
		return nil, err
	}
	if !d.Nodes {
		return c.Run, nil
	}
	// With a threshold of 0 upstream's leaves pods alone that have ended on a node that there is.
	orphans := upstreampodgc.NewPodGC(ctx, d.client, d.Informers.Core().V1().Pods(), d.Informers.Core().V1().Nodes(), 0)
	return both(c.Run, orphans.Run), nil
}

// both runs two loops of one controller until both have ended.
func both(a, b func(context.Context)) func(context.Context) {
	return func(ctx context.Context) {
		var wg sync.WaitGroup
		wg.Go(func() { a(ctx) })
		wg.Go(func() { b(ctx) })
		wg.Wait()
	}
}
