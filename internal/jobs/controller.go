package jobs

import (
	"context"
	"fmt"
	"sync"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

const (
	// component is the source of the engine's events, which kubectl shows.
	component = "job-controller"

	firstRetry = 100 * time.Millisecond
	mostRetry  = time.Minute
)

// Controller is the Job engine: it follows two informers and runs all Jobs that are its to run.
type Controller struct {
	engine      *engine
	workers     int
	broadcaster record.EventBroadcaster // nil if the recorder is the caller's
	config      Config

	jobs  workqueue.TypedRateLimitingInterface[types.UID]
	loose workqueue.TypedRateLimitingInterface[loosePod]
	ttl   workqueue.TypedRateLimitingInterface[types.UID]

	synced []cache.DoneChecker
	ready  chan struct{}
}

// loosePod is a pod that nothing controls.
type loosePod struct {
	types.NamespacedName
	uid types.UID
}

// New makes a Controller. It adds handlers and an index to the informers, which must not have been stopped; they may be running.
func New(cfg Config) (*Controller, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	cfg = cfg.complete()
	c := &Controller{
		workers: cfg.Workers,
		config:  cfg,
		jobs:    newQueue[types.UID]("job", cfg.Clock),
		loose:   newQueue[loosePod]("job_orphan_pod", cfg.Clock),
		ttl:     newQueue[types.UID]("ttl_jobs_to_delete", cfg.Clock),
		ready:   make(chan struct{}),
	}
	recorder := cfg.Recorder
	if recorder == nil {
		c.broadcaster = record.NewBroadcaster()
		recorder = c.broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: component})
	}
	m := newMetrics()
	if cfg.RegisterMetrics != nil {
		if err := m.register(cfg.RegisterMetrics); err != nil {
			return nil, err
		}
	}
	c.engine = &engine{
		client:   cfg.Client,
		recorder: recorder,
		clock:    cfg.Clock,
		caches:   informerCaches{pods: cfg.Pods.Informer().GetIndexer(), jobs: cfg.Jobs.Informer().GetIndexer()},
		wake:     c,
		limits:   limits{PodFailureBackoff: cfg.PodFailureBackoff, MaxPodFailureBackoff: cfg.MaxPodFailureBackoff},
		manager:  cfg.ManagedBy,
		inFlight: cfg.InFlight,
		metrics:  m,
		traces:   cfg.Traces,
		registry: newRegistry(),
	}
	c.engine.reaper = newReaper(cfg.Client, cfg.Clock, m, c.ttl.AddAfter)
	return c, c.follow(cfg)
}

func newQueue[T comparable](name string, c clock.WithTicker) workqueue.TypedRateLimitingInterface[T] {
	return workqueue.NewTypedRateLimitingQueueWithConfig(
		workqueue.NewTypedItemExponentialFailureRateLimiter[T](firstRetry, mostRetry),
		workqueue.TypedRateLimitingQueueConfig[T]{Name: name, Clock: c},
	)
}

// follow makes the informers tell the engine.
func (c *Controller) follow(cfg Config) error {
	err := cfg.Pods.Informer().AddIndexers(cache.Indexers{controllerIndex: indexByController})
	if err != nil {
		return fmt.Errorf("indexing pods by controller: %w", err)
	}
	pods, err := cfg.Pods.Informer().AddEventHandler(handlers(c.engine.podChanged, c.engine.podGone))
	if err != nil {
		return fmt.Errorf("following pods: %w", err)
	}
	jobs, err := cfg.Jobs.Informer().AddEventHandler(handlers(
		func(_, job *batchv1.Job, from source) { c.engine.jobChanged(job, from) }, c.engine.jobGone))
	if err != nil {
		return fmt.Errorf("following Jobs: %w", err)
	}
	c.synced = []cache.DoneChecker{pods.HasSyncedChecker(), jobs.HasSyncedChecker()}
	return nil
}

// Run runs the engine until the context ends. It returns nil then, after the last sync has ended. It must be called once only.
func (c *Controller) Run(ctx context.Context) error {
	logger := klog.LoggerWithName(klog.FromContext(ctx), "jobs")
	ctx = klog.NewContext(ctx, logger)
	if c.broadcaster != nil {
		c.broadcaster.StartStructuredLogging(3)
		c.broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: c.config.Client.CoreV1().Events("")})
		defer c.broadcaster.Shutdown()
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer c.jobs.ShutDown()
	defer c.loose.ShutDown()
	defer c.ttl.ShutDown()
	for _, s := range c.synced {
		select {
		case <-s.Done():
		case <-ctx.Done():
			return nil
		}
	}
	for range c.workers {
		wg.Go(func() { work(ctx, c.jobs, "syncing a Job", c.engine.syncJob) })
	}
	wg.Go(func() {
		work(ctx, c.loose, "releasing a pod that nothing controls", func(ctx context.Context, p loosePod) (time.Duration, error) {
			return 0, c.engine.releaseLoose(ctx, p.NamespacedName, p.uid)
		})
	})
	wg.Go(func() { work(ctx, c.ttl, "deleting a finished Job", c.engine.reaper.reap) })
	close(c.ready)
	<-ctx.Done()
	return nil
}

// Ready is closed once the informers are synced and Jobs are being run.
func (c *Controller) Ready() <-chan struct{} { return c.ready }

// work does what the queue asks for until it is shut down. What fails is tried again, later each time.
func work[T comparable](ctx context.Context, queue workqueue.TypedRateLimitingInterface[T], what string,
	do func(context.Context, T) (again time.Duration, err error)) {
	for {
		item, shutdown := queue.Get()
		if shutdown {
			return
		}
		again, err := do(ctx, item)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			klog.FromContext(ctx).Error(err, "Failed, will try again: "+what, "item", item)
			queue.AddRateLimited(item)
		default:
			queue.Forget(item)
			if again > 0 {
				queue.AddAfter(item, again)
			}
		}
		queue.Done(item)
	}
}

// Job implements wakeups.
func (c *Controller) Job(uid types.UID, after time.Duration) { c.jobs.AddAfter(uid, after) }

// Loose implements wakeups.
func (c *Controller) Loose(pod types.NamespacedName, uid types.UID) {
	c.loose.Add(loosePod{pod, uid})
}
