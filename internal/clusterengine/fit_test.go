package clusterengine

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// object is a Lease object in memory that several replicas write.
type object struct {
	mu      sync.Mutex
	record  resourcelock.LeaderElectionRecord
	version int
}

// view is what one replica knows of it: as with the API, a write is refused if
// another came after the replica's last read.
type view struct {
	*object
	identity string
	read     int
}

func (v *view) Get(context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.read = v.version
	r := v.record
	return &r, []byte{byte(v.version)}, nil
}

func (v *view) Create(ctx context.Context, r resourcelock.LeaderElectionRecord) error {
	return v.Update(ctx, r)
}

func (v *view) Update(_ context.Context, r resourcelock.LeaderElectionRecord) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.read != v.version {
		return apierrors.NewConflict(schema.GroupResource{Resource: "leases"}, "l", nil)
	}
	v.version++
	v.read, v.record = v.version, r
	return nil
}

func (v *view) RecordEvent(string) {}
func (v *view) Identity() string   { return v.identity }
func (v *view) Describe() string   { return "n/l" }

// candidate is a replica that takes part in the election from now on, fit or not.
type candidate struct {
	*lease
	ended chan error
	stop  context.CancelFunc
}

func (o *object) candidate(t *testing.T, identity string, fit <-chan struct{}) *candidate {
	options := DefaultOptions().Lease
	ctx, cancel := context.WithCancel(t.Context())
	c := &candidate{stop: cancel, ended: make(chan error, 1), lease: &lease{
		Interface: &view{object: o, identity: identity}, options: options, fit: fit,
		fence: &fence{holds: options.RenewDeadline, now: time.Now}, acquired: make(chan struct{}),
	}}
	go func() { c.ended <- c.compete(ctx) }()
	return c
}

func (c *candidate) has() bool {
	select {
	case <-c.acquired:
		return true
	default:
		return false
	}
}

// end ends it, and waits.
func (c *candidate) end(t *testing.T) {
	t.Helper()
	c.stop()
	if err := <-c.ended; err != nil {
		t.Error(err)
	}
}

// heldByTheDead is an object that somebody holds who won't renew it.
func heldByTheDead() *object {
	return &object{version: 1, record: resourcelock.LeaderElectionRecord{HolderIdentity: "dead", LeaseDurationSeconds: 15}}
}

// That the holder is dead is found out while the caches are filled: there is
// nothing left to wait for then.
func TestLeaseIsWatchedWhileUnfit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		filled := make(chan struct{})
		a := heldByTheDead().candidate(t, "a", filled)
		time.Sleep(50 * time.Second)
		if synctest.Wait(); a.has() {
			t.Error("it has the lease with its caches empty")
		}
		close(filled)
		if synctest.Wait(); !a.has() {
			t.Error("its caches are filled, the holder is dead for long, and it hasn't the lease")
		}
		if err := a.fence.check(); err != nil {
			t.Errorf("it has the lease, but: %v", err)
		}
		time.Sleep(time.Hour) // renewed meanwhile
		if err := a.fence.check(); err != nil {
			t.Errorf("an hour later: %v", err)
		}
		a.end(t)
	})
}

// A replica that isn't fit stands in nobody's way, whoever was first; and a write
// of its that was held back doesn't take from another what that has taken.
func TestUnfitYields(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, filled := heldByTheDead(), make(chan struct{})
		cold := o.candidate(t, "cold", filled)
		time.Sleep(time.Minute)
		hot := o.candidate(t, "hot", fit)
		time.Sleep(20 * time.Second) // a lease's duration, and a try
		if synctest.Wait(); !hot.has() || cold.has() {
			t.Fatalf("the hot one has the lease: %v, the cold one: %v", hot.has(), cold.has())
		}
		close(filled)
		time.Sleep(time.Minute)
		if synctest.Wait(); cold.has() || hot.fence.check() != nil {
			t.Errorf("the second has the lease: %v; of the first: %v", cold.has(), hot.fence.check())
		}
		hot.end(t) // which releases it
		time.Sleep(5 * time.Second)
		if synctest.Wait(); !cold.has() {
			t.Error("the second didn't take what was released")
		}
		cold.end(t)
	})
}

// One that is stopped before it is fit has held nothing and releases nothing.
func TestUnfitIsStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &object{} // nobody's
		a := o.candidate(t, "a", make(chan struct{}))
		time.Sleep(time.Minute)
		a.end(t)
		if o.version != 0 {
			t.Errorf("it has written: %+v", o.record)
		}
		if why := a.over(); why != "" {
			t.Errorf("it has lost what it never had: %s", why)
		}
	})
}
