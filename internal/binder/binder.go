// Package binder is errand's scheduler: it gives every pod without a node one,
// or says on the pod why it can't.
//
// Where a pod's claims are bound only once it has a node (volumeBindingMode
// WaitForFirstConsumer), the binder chooses their volumes, too, and waits for the
// PersistentVolume controller to bind them.
//
// It owns the decision and the pod's PodScheduled condition as long as the pod
// has no node. It does not own nodes' capacity (the node says it), quotas, or
// pods that name another scheduler. It never evicts: a pod of higher priority is
// bound first, but waits for running ones.
//
// # How it works
//
// The cluster's state (state.go) is kept up to date by informers, each pod's
// requests being added and taken away once; no decision adds them up anew. A pod
// that was decided on counts at once (it is assumed), so two pods never get the
// same room while a binding is under way. Pods with the same needs wait in one
// class (queue.go): if one doesn't fit the others don't either, so that a
// thousand waiting pods of a Job cost one attempt per event, not a thousand. A
// class that doesn't fit is tried again when something happens that could cure
// what was wrong (filter.go says what), never by polling.
//
// Reasons and events read as the Kubernetes scheduler's.
package binder

import (
	"context"
	"errors"
	"fmt"
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	policylisters "k8s.io/client-go/listers/policy/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"

	"errand.dev/errand/internal/podtrace"
)

// defaultWorkers is how many API writes (bindings, conditions) go on at once.
const defaultWorkers = 4

// Config is what a Binder needs.
type Config struct {
	Client kubernetes.Interface
	// Informers gives pods, nodes, namespaces, PodDisruptionBudgets, and storage and the claims to it. Its owner starts it, after New.
	Informers informers.SharedInformerFactory
	// Recorder gets Scheduled and FailedScheduling events. Upstream's source
	// component is "default-scheduler".
	Recorder record.EventRecorder
	// SchedulerName says which pods are bound: those with this
	// spec.schedulerName. Default: "default-scheduler".
	SchedulerName string
	// Workers is how many bindings go on at once. Default: 4.
	Workers int
	// Traces records where the pods' time goes; nil: nobody does.
	Traces *podtrace.Recorder
	// Clock defaults to the real one.
	Clock clock.WithDelayedExecution
}

func (c *Config) complete() error {
	var errs []error
	if c.Client == nil {
		errs = append(errs, errors.New("no client"))
	}
	if c.Informers == nil {
		errs = append(errs, errors.New("no informers"))
	}
	if c.Recorder == nil {
		errs = append(errs, errors.New("no event recorder"))
	}
	if c.SchedulerName == "" {
		c.SchedulerName = v1.DefaultSchedulerName
	}
	if c.Workers <= 0 {
		c.Workers = defaultWorkers
	}
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	return errors.Join(errs...)
}

// Binder binds pods to nodes.
type Binder struct {
	cfg    Config
	synced []cache.InformerSynced
	ready  chan struct{}
	wake   chan struct{} // holds an item if the queue may have something new
	writes chan func(context.Context)

	mu        sync.Mutex // guards what follows
	state     *state
	queue     *queue
	budgets   policylisters.PodDisruptionBudgetLister
	reminding bool // a reminder is due some time
}

// New returns a Binder that watches through cfg.Informers. It fails if the
// configuration is incomplete.
func New(cfg Config) (*Binder, error) {
	if err := cfg.complete(); err != nil {
		return nil, fmt.Errorf("binder: %w", err)
	}
	b := &Binder{
		cfg:    cfg,
		ready:  make(chan struct{}),
		wake:   make(chan struct{}, 1),
		writes: make(chan func(context.Context)),
		state: newState(&storage{
			claims:  cfg.Informers.Core().V1().PersistentVolumeClaims().Lister(),
			volumes: cfg.Informers.Core().V1().PersistentVolumes().Lister(),
			classes: cfg.Informers.Storage().V1().StorageClasses().Lister(),
		}),
		queue:   newQueue(),
		budgets: cfg.Informers.Policy().V1().PodDisruptionBudgets().Lister(),
	}
	if err := b.watch(); err != nil {
		return nil, fmt.Errorf("binder: %w", err)
	}
	return b, nil
}

// Ready is closed once the caches are filled and binding has begun.
func (b *Binder) Ready() <-chan struct{} { return b.ready }

// Run binds pods until ctx ends; then it waits for the writes under way and
// returns nil. It may be called once.
func (b *Binder) Run(ctx context.Context) error {
	if !cache.WaitForCacheSync(ctx.Done(), b.synced...) {
		return nil
	}
	var workers sync.WaitGroup
	for range b.cfg.Workers {
		workers.Go(func() {
			for write := range b.writes {
				write(ctx)
			}
		})
	}
	defer workers.Wait()
	defer close(b.writes)
	close(b.ready)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-b.wake:
			b.drain(ctx)
		}
	}
}

// drain decides on every pod that may fit, then on what to tell the others.
func (b *Binder) drain(ctx context.Context) {
	for ctx.Err() == nil {
		write := b.next(ctx)
		if write == nil {
			return
		}
		select {
		case b.writes <- write:
		case <-ctx.Done():
		}
	}
}

// next makes one decision and returns the write that carries it out, or nil if
// there is nothing to decide.
func (b *Binder) next(ctx context.Context) func(context.Context) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		p := b.queue.head()
		if p == nil {
			return b.nextReport()
		}
		node, why := b.state.place(ctx, p.info)
		if node != nil {
			if write := b.await(p, node); write != nil {
				return write
			}
			b.queue.remove(p.info.uid)
			delete(b.state.nominated, p.info.uid)
			b.state.assume(p.info, node.name)
			return func(ctx context.Context) { b.bind(ctx, p, node.name) }
		}
		if write := b.makeRoom(ctx, p, why); write != nil {
			return write
		}
		b.queue.block(p, why)
	}
}

// nextReport takes the next pod that hasn't been told why it waits. b.mu must
// be held.
func (b *Binder) nextReport() func(context.Context) {
	u := b.queue.takeUntold()
	if u == nil {
		return nil
	}
	u.lost = u.pod.Status.NominatedNodeName != "" && b.state.nominated[u.pod.UID] == nil
	return func(ctx context.Context) { b.report(ctx, u) }
}

func (b *Binder) signal() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}
