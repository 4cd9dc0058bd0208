// Package registration makes the machine known to the API server as a Node and
// keeps that Node true: capacity, addresses, conditions, taints, images, and a
// lease that says it's alive.
//
// It owns the Node object of its name, except what users put there (their
// labels, annotations, taints, spec.unschedulable), and the lease of the same
// name. It does not run pods and decides nothing about them: whoever binds pods
// heeds the taints that stand for the conditions. On a cluster with a node
// lifecycle controller both agree on those taints.
//
// The runtime and the eviction manager are asked every CheckInterval, but the Node
// is written only if something has changed, or once per ReportInterval. A user who
// deletes the Node sees it come back at once.
package registration

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
)

const (
	// CheckInterval is how often the runtime's state and pressures are looked at.
	CheckInterval = 10 * time.Second
	// ReportInterval is how often the Node is written though nothing changed,
	// for the heartbeats in its conditions.
	ReportInterval = 5 * time.Minute
	// DefaultMaxPods is the kubelet's.
	DefaultMaxPods = 110

	// A runtime that isn't ready is asked again after firstUnready, since it
	// starts beside us and the start of the whole waits for it; then after twice
	// as long each time, up to CheckInterval.
	firstUnready = 25 * time.Millisecond
	// retryInterval is how long to wait after the API server refused a write.
	retryInterval = time.Second
	// maxImages bounds status.images, as the kubelet does.
	maxImages = 50
)

// Registration keeps one Node. Make it with New and run it once.
type Registration struct {
	cfg       Config
	facts     Facts // of the machine, which don't change
	arch      string
	recheck   chan struct{}
	ready     chan struct{}
	readyOnce sync.Once

	// Of the loop in Run only:
	images   []v1.ContainerImage
	relist   bool          // images may have changed
	unready  time.Duration // how long to wait while the runtime isn't ready
	reported time.Time     // when the status was last written

	mu      sync.Mutex
	waiting []chan struct{} // closed once a check that began later is written
}

// New reads the machine's facts and returns a Registration.
func New(cfg Config) (*Registration, error) {
	if err := cfg.complete(); err != nil {
		return nil, fmt.Errorf("registration: %w", err)
	}
	facts, err := cfg.Host.Facts()
	if err != nil {
		return nil, fmt.Errorf("registration: %w", err)
	}
	if cfg.Reserved == nil {
		cfg.Reserved = DefaultReserved(facts)
	}
	r := &Registration{
		cfg:     cfg,
		facts:   facts,
		arch:    runtime.GOARCH,
		recheck: make(chan struct{}, 1),
		ready:   make(chan struct{}),
		relist:  true,
		unready: firstUnready,
	}
	if err := r.watchNode(); err != nil {
		return nil, fmt.Errorf("registration: %w", err)
	}
	return r, nil
}

// Ready is closed once the API server has the Node with condition Ready.
func (r *Registration) Ready() <-chan struct{} { return r.ready }

// Recheck has everything looked at, and the images listed, now rather than at the
// next interval: to be called when something is known to have changed.
func (r *Registration) Recheck() {
	select {
	case r.recheck <- struct{}{}:
	default:
	}
}

// Announce has the Node say what is true now, and returns when it does, or when
// ctx has ended.
func (r *Registration) Announce(ctx context.Context) {
	said := make(chan struct{})
	r.mu.Lock()
	r.waiting = append(r.waiting, said)
	r.mu.Unlock()
	r.Recheck()
	select {
	case <-said:
	case <-ctx.Done():
	}
}

// takeWaiting returns those who wait for the check that begins now.
func (r *Registration) takeWaiting() []chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	waiting := r.waiting
	r.waiting = nil
	return waiting
}

// Allocatable is what the Node offers to pods.
func (r *Registration) Allocatable() v1.ResourceList {
	return allocatable(capacity(r.facts, r.cfg.MaxPods), r.cfg.Reserved)
}

// MemoryCapacity is how much memory the machine has, in bytes.
func (r *Registration) MemoryCapacity() int64 { return r.facts.Memory }

// NodeIP is the Node's InternalIP.
func (r *Registration) NodeIP() net.IP { return r.cfg.NodeIP }

// Run registers the Node and keeps it until ctx ends, then returns nil. The Node
// stays, as a stopped kubelet's does. It fails only if the API server has a Node
// of this name that can't be this machine's.
func (r *Registration) Run(ctx context.Context) error {
	var work sync.WaitGroup
	defer work.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	leasing := false
	var waiting []chan struct{}
	for {
		waiting = append(waiting, r.takeWaiting()...)
		ready, err := r.check(ctx)
		if err == nil {
			for _, said := range waiting {
				close(said)
			}
			waiting = nil
		}
		if errors.Is(err, errForeignNode) {
			return err
		}
		if err != nil && ctx.Err() == nil && !apierrors.IsConflict(err) {
			klog.FromContext(ctx).Error(err, "The Node could not be brought up to date; will try again", "node", r.cfg.NodeName)
		}
		if err == nil && !leasing {
			leasing = true // the lease names the Node as its owner, so that comes first
			work.Go(func() { r.renewLease(ctx) })
		}
		if err == nil && ready {
			r.readyOnce.Do(func() { close(r.ready) })
		}
		if !r.wait(ctx, r.interval(ready, err)) {
			return nil
		}
	}
}

// interval is how long to wait for the next check.
func (r *Registration) interval(ready bool, err error) time.Duration {
	switch {
	case err != nil:
		return retryInterval
	case ready:
		r.unready = firstUnready
		return CheckInterval
	}
	wait := r.unready
	r.unready = min(2*wait, CheckInterval)
	return wait
}

// wait returns when the interval is over or a check is asked for, false if ctx
// has ended.
func (r *Registration) wait(ctx context.Context, interval time.Duration) bool {
	timer := r.cfg.Clock.NewTimer(interval)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-r.recheck:
		r.relist = true
		return true
	case <-timer.C():
		return true
	}
}

// check looks at everything, makes the Node say it, and tells whether that is
// that it's ready.
func (r *Registration) check(ctx context.Context) (ready bool, err error) {
	node, err := r.cfg.Client.CoreV1().Nodes().Get(ctx, r.cfg.NodeName, metav1.GetOptions{})
	missing := apierrors.IsNotFound(err)
	if err != nil && !missing {
		return false, fmt.Errorf("get node %q: %w", r.cfg.NodeName, err)
	}
	if missing {
		node = &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: r.cfg.NodeName}}
	}
	o := r.observe(ctx)
	if r.relist || r.cfg.Clock.Since(r.reported) >= ReportInterval {
		r.listImages(ctx)
	}
	want, err := r.desired(node, o)
	if err != nil {
		return false, err
	}
	if missing {
		err = r.create(ctx, want)
	} else {
		err = r.update(ctx, node, want)
	}
	if apierrors.IsConflict(err) {
		r.Recheck() // somebody has changed the Node meanwhile, perhaps its extended resources
	}
	if err != nil {
		return false, err
	}
	r.tell(node, want)
	return o.notReady == "", nil
}

// tell records what has changed in the Node's conditions.
func (r *Registration) tell(have, want *v1.Node) {
	if r.cfg.Recorder == nil {
		return
	}
	ref := &v1.ObjectReference{Kind: "Node", Name: r.cfg.NodeName, UID: types.UID(r.cfg.NodeName)}
	for _, reason := range changes(have.Status.Conditions, want.Status.Conditions) {
		r.cfg.Recorder.Eventf(ref, v1.EventTypeNormal, reason, "Node %s status is now: %s", r.cfg.NodeName, reason)
	}
}

func (r *Registration) create(ctx context.Context, want *v1.Node) error {
	created, err := r.cfg.Client.CoreV1().Nodes().Create(ctx, want, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("register node: %w", err)
	}
	r.reported = r.cfg.Clock.Now()
	// An admission plugin (TaintNodesByCondition) may have tainted it as not ready.
	_, err = r.updateSpec(ctx, created, want)
	return err
}

// update writes what differs, and the status when it is due.
func (r *Registration) update(ctx context.Context, have, want *v1.Node) error {
	have, err := r.updateSpec(ctx, have, want)
	if err != nil {
		return err
	}
	now := r.cfg.Clock.Now()
	if now.Sub(r.reported) < ReportInterval && sameStatus(&have.Status, &want.Status) {
		return nil
	}
	beat(want.Status.Conditions, metav1.NewTime(now))
	have = have.DeepCopy()
	have.Status = want.Status
	if _, err := r.cfg.Client.CoreV1().Nodes().UpdateStatus(ctx, have, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("update node status: %w", err)
	}
	r.reported = now
	return nil
}

// updateSpec writes labels and spec if they differ, and returns the Node as it is then.
func (r *Registration) updateSpec(ctx context.Context, have, want *v1.Node) (*v1.Node, error) {
	if sameSpec(have, want) {
		return have, nil
	}
	node := have.DeepCopy()
	node.Labels, node.Spec = want.Labels, want.Spec
	node, err := r.cfg.Client.CoreV1().Nodes().Update(ctx, node, metav1.UpdateOptions{})
	if err != nil {
		return nil, fmt.Errorf("update node: %w", err)
	}
	return node, nil
}
