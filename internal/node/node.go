package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"errand.dev/errand/internal/node/crispec"
	"errand.dev/errand/internal/node/hook"
	"errand.dev/errand/internal/node/imagepull"
	"errand.dev/errand/internal/node/probe"
	"errand.dev/errand/internal/node/resize"
	"errand.dev/errand/internal/node/userns"
	"errand.dev/errand/internal/node/volumes"
)

// Node is the node agent. Make it with New, run it once with Run.
type Node struct {
	cfg     Config
	spec    crispec.Node
	objects *objects
	volumes *volumes.Manager
	puller  *imagepull.Puller
	prober  *probe.Prober
	hooks   *hook.Runner
	pods    cache.SharedIndexInformer
	lister  corelisters.PodLister
	metrics *Metrics
	// starts holds a token for each pod that may start things at present.
	starts chan struct{}
	ready  chan struct{}
	ledger *resize.Ledger
	users  *userns.Allotter
	work   sync.WaitGroup // goroutines of workers

	mu          sync.Mutex
	ctx         context.Context // of Run; nil before
	since       time.Time       // when Run began
	draining    bool
	runtimeName string
	workers     map[types.UID]*worker
}

// New returns a Node. It registers with the informers, which must not have been
// started for the node's pods to be seen from the beginning.
func New(cfg Config) (*Node, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	core := cfg.Informers.Core().V1()
	n := &Node{
		cfg:     cfg,
		spec:    cfg.spec(),
		objects: newObjects(cfg),
		puller:  imagepull.New(cfg.Images, cfg.PullRecords, cfg.Clock),
		pods:    core.Pods().Informer(),
		lister:  core.Pods().Lister(),
		metrics: newMetrics(cfg.Runtime),
		starts:  make(chan struct{}, cfg.StartConcurrency),
		ready:   make(chan struct{}),
		workers: map[types.UID]*worker{},
		ledger:  resize.NewLedger(cfg.Allocatable),
	}
	n.prober = probe.New(probe.Config{Clock: cfg.Clock, Exec: n.exec, Spawn: n.spawn, Event: n.containerWarning})
	n.hooks = hook.New(func(ctx context.Context, id string, command []string) ([]byte, error) {
		return n.exec(ctx, id, command, 0)
	}, cfg.Clock)
	var err error
	if n.users, err = userns.New(cfg.RootDir, cfg.UserIDs); err != nil {
		return nil, err
	}
	n.volumes, err = volumes.New(volumes.Config{
		RootDir:    cfg.RootDir,
		MemoryDir:  cfg.MemoryDir,
		Client:     cfg.Client,
		ConfigMaps: core.ConfigMaps(),
		Secrets:    core.Secrets(),
		Claims:     core.PersistentVolumeClaims(),
		Volumes:    core.PersistentVolumes(),
		OnChange:   n.objectsChanged,
		Clock:      cfg.Clock,
	})
	if err != nil {
		return nil, err
	}
	return n, nil
}

// Ready is closed once the node has found again what ran before and looks after
// its pods.
func (n *Node) Ready() <-chan struct{} { return n.ready }

// Metrics returns the node's metrics, to be registered by who serves them.
func (n *Node) Metrics() *Metrics { return n.metrics }

// RegisterProbes registers the metrics of probes, which the kubelet serves apart.
func (n *Node) RegisterProbes(registry Registry) error {
	for _, m := range n.prober.Metrics() {
		if err := registry.Register(m); err != nil {
			return err
		}
	}
	return nil
}

// Run looks after the node's pods until ctx ends. Containers go on running
// then. An error means that the runtime or the informers can't be used.
func (n *Node) Run(ctx context.Context) error {
	logger := klog.FromContext(ctx).WithName("node")
	ctx, cancel := context.WithCancel(klog.NewContext(ctx, logger))
	defer n.drain()
	defer cancel()

	n.mu.Lock()
	n.ctx, n.since = ctx, n.cfg.Clock.Now()
	n.mu.Unlock()

	// Events first: what happens while the pods are being listed must not be missed.
	there := make(chan struct{}, 1)
	n.spawn(func(ctx context.Context) { n.watchRuntime(ctx, there) })
	select {
	case <-there:
	case <-ctx.Done():
		return nil
	}
	if err := n.whenThere(ctx, there, n.nameRuntime); err != nil {
		return fmt.Errorf("ask the container runtime for its version: %w", err)
	}
	registration, err := n.pods.AddEventHandler(cache.FilteringResourceEventHandler{
		FilterFunc: n.mine,
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(obj any) { n.podSeen(obj.(*v1.Pod)) },
			UpdateFunc: func(old, obj any) { n.podChanged(old.(*v1.Pod), obj.(*v1.Pod)) },
			DeleteFunc: n.podGone,
		},
	})
	if err != nil {
		return fmt.Errorf("watch pods: %w", err)
	}
	defer func() { _ = n.pods.RemoveEventHandler(registration) }()
	if !cache.WaitForCacheSync(ctx.Done(), registration.HasSynced) {
		return nil
	}
	n.ledger.Complete()
	n.retryResizes("")
	if err := n.whenThere(ctx, there, n.adoptOrphans); err != nil {
		return fmt.Errorf("find what ran before: %w", err)
	}
	if ctx.Err() != nil {
		return nil
	}
	close(n.ready)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-there: // it may have come back with what it had given up
			if err := n.whenThere(ctx, there, n.adoptOrphans); err != nil && ctx.Err() == nil {
				logger.Error(err, "Cannot look for pods that the API no longer has")
			}
		}
	}
}

// whenThere does what needs the runtime, again if that turns out to be away once
// it is back, of which there tells. It returns nil if ctx has ended.
func (n *Node) whenThere(ctx context.Context, there <-chan struct{}, do func(context.Context) error) error {
	for {
		err := do(ctx)
		if err == nil || ctx.Err() != nil {
			return nil
		}
		if status.Code(err) != codes.Unavailable {
			return err
		}
		klog.FromContext(ctx).V(2).Info("Waiting for the container runtime", "err", err)
		select {
		case <-there:
		case <-n.cfg.Clock.After(retryMax): // should it have been away for this call alone
		case <-ctx.Done():
			return nil
		}
	}
}

func (n *Node) nameRuntime(ctx context.Context) error {
	version, err := n.cfg.Runtime.Version(ctx, "")
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.runtimeName = version.GetRuntimeName()
	return nil
}

// mine tells whether the pod is bound to this node.
func (n *Node) mine(obj any) bool {
	if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = gone.Obj
	}
	pod, ok := obj.(*v1.Pod)
	return ok && pod.Spec.NodeName == n.cfg.NodeName
}

func (n *Node) podSeen(pod *v1.Pod) {
	n.worker(pod.UID).update(pod)
}

// podChanged takes a pod's new version. After a watch was cut off it may be another
// pod of the same name, the end of the old one having been missed.
func (n *Node) podChanged(old, pod *v1.Pod) {
	if old.UID != pod.UID {
		n.podGone(old)
	}
	n.podSeen(pod)
}

func (n *Node) podGone(obj any) {
	if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = gone.Obj
	}
	if pod, ok := obj.(*v1.Pod); ok {
		n.worker(pod.UID).gone(pod)
	}
}

// worker returns the pod's worker, making it if there is none.
func (n *Node) worker(uid types.UID) *worker {
	now := n.cfg.Clock.Now()
	n.mu.Lock()
	defer n.mu.Unlock()
	w := n.workers[uid]
	if w == nil {
		w = newWorker(n, uid, now)
		n.workers[uid] = w
	}
	return w
}

// existing returns the pod's worker, nil if there is none.
func (n *Node) existing(uid types.UID) *worker {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.workers[uid]
}

// all returns all workers.
func (n *Node) all() []*worker {
	n.mu.Lock()
	defer n.mu.Unlock()
	list := make([]*worker, 0, len(n.workers))
	for _, w := range n.workers {
		list = append(list, w)
	}
	return list
}

func (n *Node) forget(uid types.UID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.workers, uid)
	n.ledger.Drop(uid)
}

func (n *Node) objectsChanged(uid types.UID) {
	if w := n.existing(uid); w != nil {
		w.objectsChanged()
	}
}

// known returns the UIDs of the node's pods in the API.
func (n *Node) known() (map[types.UID]struct{}, error) {
	list, err := n.lister.List(labels.Everything())
	if err != nil {
		return nil, err
	}
	uids := map[types.UID]struct{}{}
	for _, pod := range list {
		if n.mine(pod) {
			uids[pod.UID] = struct{}{}
		}
	}
	return uids, nil
}

// start acquires the right to start things; the returned function gives it
// back. It fails only if ctx ends. before is called if there is a wait.
func (n *Node) start(ctx context.Context, before func()) (release func(), err error) {
	release = func() { <-n.starts }
	select {
	case n.starts <- struct{}{}:
		return release, nil
	default:
	}
	before()
	select {
	case n.starts <- struct{}{}:
		return release, nil
	case <-ctx.Done():
		return nil, errors.Join(errStopped, ctx.Err())
	}
}

// errStopped tells that the agent is being stopped: nothing is wrong.
var errStopped = errors.New("the node agent is stopping")

// spawn runs f in a goroutine that Run waits for, unless Run hasn't begun or is
// ending. It tells whether it did.
func (n *Node) spawn(f func(ctx context.Context)) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ctx == nil || n.draining || n.ctx.Err() != nil {
		return false
	}
	ctx := n.ctx
	n.work.Go(func() { f(ctx) })
	return true
}

// drain lets nobody spawn any more and waits for all goroutines.
func (n *Node) drain() {
	n.mu.Lock()
	n.draining = true
	n.mu.Unlock()
	n.work.Wait()
}

// runtime returns the runtime's name.
func (n *Node) runtime() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.runtimeName
}

func (n *Node) volumeInfo() volumes.Info {
	return volumes.Info{Allocatable: n.cfg.Allocatable}
}
