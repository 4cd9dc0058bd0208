// Package controllers runs upstream's controllers beside errand's own: the
// ones that give namespaces, service accounts, quotas, owner references,
// CronJobs, PodDisruptionBudgets, taints, PersistentVolumes and their claims
// their behaviour. They are imported and run as they are.
//
// It owns the list of them and what each is told; it has no behaviour of its
// own. Of the collector of pods one part is errand's (package podgc). The Job engine, the binder and the node agent are errand's and stand
// elsewhere.
package controllers

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
)

// discoveryPeriod is how often the garbage collector and the quota controller
// look for kinds that came or went. Kinds only change with a new errand, so
// this is far rarer than upstream's 30 s, which costs a discovery of every
// group each time.
const discoveryPeriod = time.Hour

// Config is what the controllers need.
type Config struct {
	// ClientFor returns what a controller reads and writes with, by the name of
	// the service account in kube-system that is upstream's for it: admission
	// tells controllers from administrators by that.
	ClientFor func(account string) (kubernetes.Interface, error)
	// Informers are shared with errand's own components. They are started by
	// the caller after New, and again by the controllers that add to them.
	Informers informers.SharedInformerFactory
	// REST reaches the API for what such a client can't do: metadata-only reads
	// and discovery.
	REST *rest.Config
	// RootCA is the PEM bundle that every namespace's kube-root-ca.crt holds.
	RootCA []byte
	// Nodes says whether this process has a node: without one, pods of nodes
	// that are gone are left to whoever brought the nodes.
	Nodes bool
	// TerminatedPodGCThreshold is how many pods that have ended are kept; 0 or less is all.
	TerminatedPodGCThreshold int
	// VolumesDir holds the volumes that are made for claims; "" makes none.
	VolumesDir string
}

// Controller is one of upstream's controllers, ready to run.
type Controller struct {
	Name string
	// Run blocks until ctx ends.
	Run func(ctx context.Context)
}

// builder makes one controller.
type builder func(ctx context.Context, d *dependencies) (func(context.Context), error)

// dependencies are what more than one controller needs.
type dependencies struct {
	Config
	client    kubernetes.Interface // the controller's own
	discovery discovery.DiscoveryInterface
	metadata  metadata.Interface
	mapper    *restmapper.DeferredDiscoveryRESTMapper
	// graph gives the informers of the garbage collector and of quota.
	graph *graphInformers
	// started is closed when the informers are first started.
	started chan struct{}
}

// Set is the controllers together.
type Set struct {
	controllers []Controller
	started     chan struct{}
}

// New makes all controllers. Their informers are added to c.Informers, which
// the caller starts before Run.
func New(ctx context.Context, c Config) (*Set, error) {
	d, err := newDependencies(c)
	if err != nil {
		return nil, err
	}
	list := []struct {
		name, account string
		build         builder
	}{
		{name: "namespace", account: "namespace-controller", build: namespaces},
		{name: "serviceaccount", account: "service-account-controller", build: serviceAccounts},
		{name: "root-ca-certificate-publisher", account: "root-ca-cert-publisher", build: rootCA},
		{name: "clusterrole-aggregation", account: "clusterrole-aggregation-controller", build: clusterRoleAggregation},
		{name: "garbage-collector", account: "generic-garbage-collector", build: garbageCollector},
		{name: "resourcequota", account: "resourcequota-controller", build: resourceQuota},
		{name: "cronjob", account: "cronjob-controller", build: cronJobs},
		{name: "disruption", account: "disruption-controller", build: disruptions},
		// Upstream's has the rights of the controller that it was part of once.
		{name: "taint-eviction", account: "node-controller", build: taintEvictions},
		{name: "persistentvolume-binder", account: "persistent-volume-binder", build: persistentVolumes},
		{name: "persistentvolumeclaim-protection", account: "pvc-protection-controller", build: claimProtection},
		{name: "persistentvolume-protection", account: "pv-protection-controller", build: volumeProtection},
		{name: "ephemeral-volume", account: "ephemeral-volume-controller", build: ephemeralVolumes},
		{name: "pod-garbage-collector", account: "pod-garbage-collector", build: podGC},
	}
	s := &Set{started: d.started}
	var errs []error
	for _, l := range list {
		run, err := build(ctx, d, l.account, l.build)
		if err != nil {
			errs = append(errs, fmt.Errorf("controller %s: %w", l.name, err))
			continue
		}
		s.controllers = append(s.controllers, Controller{Name: l.name, Run: run})
	}
	return s, errors.Join(errs...)
}

// build makes one controller with a client of its own.
func build(ctx context.Context, d *dependencies, account string, b builder) (func(context.Context), error) {
	own := *d
	var err error
	if own.client, err = d.ClientFor(account); err != nil {
		return nil, err
	}
	return b(ctx, &own)
}

func newDependencies(c Config) (*dependencies, error) {
	// The controllers meter themselves by their workers; a client-side limit
	// would only add latency on a machine's own API.
	cfg := rest.CopyConfig(c.REST)
	cfg.QPS, cfg.Burst = -1, 0
	disco, err := discovery.NewDiscoveryClientForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("discovery client: %w", err)
	}
	meta, err := metadata.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("metadata client: %w", err)
	}
	cached := memory.NewMemCacheClient(disco)
	return &dependencies{
		Config:    c,
		discovery: cached,
		metadata:  meta,
		mapper:    restmapper.NewDeferredDiscoveryRESTMapper(cached),
		graph:     newGraphInformers(c, meta),
		started:   make(chan struct{}),
	}, nil
}

// Run runs all controllers until ctx ends, and returns when all have ended.
// The informers must have been started.
func (s *Set) Run(ctx context.Context) error {
	close(s.started)
	var wg sync.WaitGroup
	for _, c := range s.controllers {
		wg.Go(func() { c.Run(ctx) })
	}
	wg.Wait()
	return nil
}
