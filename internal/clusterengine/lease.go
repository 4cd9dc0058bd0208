package clusterengine

import (
	"context"
	"fmt"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/utils/ptr"
)

// A lease decides which of several replicas acts. The election is client-go's;
// around it stands what that leaves open:
//
//   - A holder's requests are held back as soon as its time is up, by the fence,
//     whether the election has noticed or not.
//   - A holder that learns of another one, be it by a read or by the watch, has
//     lost: it doesn't go on to compete, for what it knows may be old.
//   - Who has lost doesn't release: that would release the successor's lease,
//     which client-go's election does if it was stopped for long enough.
//   - A release is seen by a watch and taken up at once; others that go missing
//     are noticed as ever, by time.
//   - A replica that isn't fit to act yet takes part all the same, for to notice
//     that a holder is dead takes as long as a lease; but it takes the lease only
//     once it is fit, and leaves it to whoever is before.
//
// It implements resourcelock.Interface over the Lease object, to see and judge
// what the election reads and writes.
type lease struct {
	resourcelock.Interface // the Lease object
	options                LeaseOptions
	fence                  *fence
	watcher                kubernetes.Interface
	// fit is closed once this replica could act at once.
	fit <-chan struct{}

	// acquired is closed once the lease is held.
	acquired chan struct{}

	mu sync.Mutex
	// holder is who held the lease when it was last read or written.
	holder string
	held   bool
	// shown is set once the watch has shown this replica as the holder: what it
	// shows of others after that is newer.
	shown bool
	// lost says why the lease is lost; "" while it isn't.
	lost string
	// giveUp ends the election that is under way.
	giveUp context.CancelFunc
}

// newLease makes the lease of one replica. requests reads and writes the Lease
// object, and should give up in time; watcher watches it. The lease is taken
// only once fit is closed.
func newLease(o LeaseOptions, identity string, requests, watcher kubernetes.Interface, fit <-chan struct{}) *lease {
	return &lease{
		Interface: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: o.Namespace, Name: o.Name},
			Client:     requests.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: identity},
		},
		options:  o,
		fence:    &fence{holds: o.RenewDeadline, now: time.Now},
		watcher:  watcher,
		fit:      fit,
		acquired: make(chan struct{}),
		giveUp:   func() {},
	}
}

// Run competes for the lease, then holds it until ctx ends, and releases it. It
// returns an error once the lease is lost: whoever acted by it must end.
func (l *lease) Run(ctx context.Context) error {
	watching, stop := context.WithCancel(ctx)
	unwatch, err := l.watch(watching)
	defer unwatch()
	defer stop()
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		if err := l.compete(ctx); err != nil {
			return err
		}
		if why := l.over(); why != "" && ctx.Err() == nil {
			return fmt.Errorf("the lease %s is lost: %s", l.Describe(), why)
		}
	}
	return nil
}

// compete is one election: until ctx ends, the lease is lost, or somebody has
// released it, for which a new election is the quickest way to try at once.
func (l *lease) compete(ctx context.Context) error {
	election, stop := context.WithCancel(ctx)
	defer stop()
	l.mu.Lock()
	l.giveUp = stop
	l.mu.Unlock()
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock:            l,
		LeaseDuration:   l.options.Duration,
		RenewDeadline:   l.options.RenewDeadline,
		RetryPeriod:     l.options.RetryPeriod,
		ReleaseOnCancel: true,
		Name:            l.options.Name,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(context.Context) {},
			OnStoppedLeading: func() {},
		},
	})
	if err != nil {
		return fmt.Errorf("compete for the lease %s: %w", l.Describe(), err)
	}
	elector.Run(election)
	return nil
}

// other is who else held the lease when it was last seen; "" if nobody did.
func (l *lease) other() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.holder == l.Identity() {
		return ""
	}
	return l.holder
}

// over says why a lease that was held isn't any more; "" if it never was.
func (l *lease) over() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.held {
		return ""
	}
	if l.lost == "" {
		l.lose(fmt.Sprintf("it couldn't be renewed for %s", l.options.RenewDeadline))
	}
	return l.lost
}

// lose ends what depends on the lease. l.mu is held.
func (l *lease) lose(why string) {
	l.fence.close()
	if l.lost == "" {
		l.lost = why
	}
	l.giveUp()
}

// Get implements resourcelock.Interface.
func (l *lease) Get(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	record, raw, err := l.Interface.Get(ctx)
	switch {
	case err == nil:
		l.read(record.HolderIdentity)
	case apierrors.IsNotFound(err):
		l.read("")
	}
	return record, raw, err
}

func (l *lease) read(holder string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holder = holder
	if l.held && holder != l.Identity() {
		l.lose(held(holder))
	}
}

func held(by string) string {
	if by == "" {
		return "nobody holds it, so that another may have meanwhile"
	}
	return by + " holds it"
}

// Create implements resourcelock.Interface.
func (l *lease) Create(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	return l.write(ctx, record, l.Interface.Create)
}

// Update implements resourcelock.Interface. The record names this replica, or
// nobody, which is a release.
func (l *lease) Update(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	return l.write(ctx, record, l.Interface.Update)
}

func (l *lease) write(ctx context.Context, record resourcelock.LeaderElectionRecord, write func(context.Context, resourcelock.LeaderElectionRecord) error) error {
	if err := l.awaitFit(ctx, record); err != nil {
		return err
	}
	if err := l.mayWrite(record); err != nil {
		return err
	}
	sent := l.fence.now()
	if err := write(ctx, record); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holder = record.HolderIdentity
	if l.holder != l.Identity() || l.lost != "" {
		return nil
	}
	l.fence.renewed(sent)
	if !l.held {
		l.held = true
		close(l.acquired)
	}
	return nil
}

// awaitFit holds back the write that takes the lease. One that is sent late is
// refused, by its version, if another has taken the lease meanwhile.
func (l *lease) awaitFit(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	if record.HolderIdentity != l.Identity() {
		return nil
	}
	select {
	case <-l.fit:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the lease %s isn't taken before the caches are filled: %w", l.Describe(), ctx.Err())
	}
}

func (l *lease) mayWrite(record resourcelock.LeaderElectionRecord) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	release := record.HolderIdentity != l.Identity()
	if release {
		l.fence.close()
	}
	switch {
	case release && l.holder != l.Identity():
		return fmt.Errorf("the lease %s isn't this replica's to release: %s", l.Describe(), held(l.holder))
	case !release && l.lost != "":
		return fmt.Errorf("the lease %s is lost: %s", l.Describe(), l.lost)
	}
	return nil
}

// watch follows the Lease object until ctx ends; the function returned waits
// for the end.
func (l *lease) watch(ctx context.Context) (wait func(), err error) {
	factory := informers.NewSharedInformerFactoryWithOptions(l.watcher, 0,
		informers.WithNamespace(l.options.Namespace),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) {
			o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, l.options.Name).String()
		}))
	_, err = factory.Coordination().V1().Leases().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    l.see,
		UpdateFunc: func(_, obj any) { l.see(obj) },
		DeleteFunc: func(any) { l.seen("") },
	})
	if err != nil {
		return func() {}, fmt.Errorf("watch the lease %s: %w", l.Describe(), err)
	}
	factory.StartWithContext(ctx)
	return factory.Shutdown, nil
}

// see takes in a version of the Lease object that the watch shows.
func (l *lease) see(obj any) {
	object, ok := obj.(*coordinationv1.Lease)
	if !ok {
		return
	}
	holder := ptr.Deref(object.Spec.HolderIdentity, "")
	l.seen(holder)
	l.mu.Lock()
	defer l.mu.Unlock()
	if holder == "" && !l.held {
		l.giveUp() // this election, for another, which tries at once
	}
}

// seen takes in who holds the lease. Somebody who deletes the object takes it
// from its holder, but isn't followed at once: the holder must hear of it first.
func (l *lease) seen(holder string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case holder == l.Identity():
		l.shown = true
	case l.shown && l.held:
		l.lose(held(holder))
	}
}
