package clusterengine

import (
	"context"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// patient are a lease's times of which none passes during a test: what happens
// in one happens for another reason.
var patient = LeaseOptions{Duration: 30 * patience, RenewDeadline: 20 * patience, RetryPeriod: 10 * patience}

// fit is closed, as that of a replica whose caches are filled.
var fit = func() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// namespaceFor makes a namespace.
func namespaceFor(t *testing.T) string {
	t.Helper()
	ns, err := cluster.admin.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return ns.Name
}

// contender is a replica's lease that is run.
type contender struct {
	*lease
	stop  context.CancelFunc
	ended chan error
}

func contend(t *testing.T, o LeaseOptions, identity string) *contender {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c := &contender{lease: newLease(o, identity, cluster.admin, cluster.admin, fit), stop: cancel, ended: make(chan error, 1)}
	go func() { c.ended <- c.Run(ctx) }()
	t.Cleanup(cancel)
	return c
}

func (c *contender) awaitHeld(t *testing.T) {
	t.Helper()
	select {
	case <-c.acquired:
	case err := <-c.ended:
		t.Fatalf("%s ended: %v", c.Identity(), err)
	case <-time.After(patience):
		t.Fatalf("%s didn't get the lease", c.Identity())
	}
	if err := c.fence.check(); err != nil {
		t.Errorf("%s has the lease, but: %v", c.Identity(), err)
	}
}

// awaitEnd returns what Run ended with. The fence is closed by then.
func (c *contender) awaitEnd(t *testing.T) error {
	t.Helper()
	select {
	case err := <-c.ended:
		if c.fence.check() == nil {
			t.Errorf("%s has ended, but its requests pass", c.Identity())
		}
		return err
	case <-time.After(patience):
		t.Fatalf("%s didn't end", c.Identity())
		return nil
	}
}

// A release is taken up at once, not when it is next asked for: that would take
// ten minutes here.
func TestLeaseIsHandedOver(t *testing.T) {
	o := patient
	o.Namespace, o.Name = namespaceFor(t), "l"
	a := contend(t, o, "a")
	a.awaitHeld(t)
	if other := a.other(); other != "" {
		t.Errorf("a has the lease, and says that %s does", other)
	}
	b := contend(t, o, "b")
	c := contend(t, o, "c")
	for _, next := range []*contender{b, c} {
		select {
		case <-next.acquired:
			t.Fatalf("%s got the lease beside a", next.Identity())
		default:
		}
	}
	a.stop()
	if err := a.awaitEnd(t); err != nil {
		t.Errorf("a ended with %v", err)
	}
	first, last := b, c
	select {
	case <-b.acquired:
	case <-c.acquired:
		first, last = c, b
	case <-time.After(patience):
		t.Fatal("nobody took the lease")
	}
	select {
	case <-last.acquired:
		t.Fatal("two took the lease")
	default:
	}
	first.stop()
	if err := first.awaitEnd(t); err != nil {
		t.Errorf("%s ended with %v", first.Identity(), err)
	}
	last.awaitHeld(t)
	last.stop()
	if err := last.awaitEnd(t); err != nil {
		t.Errorf("%s ended with %v", last.Identity(), err)
	}
}

// A holder hears by the watch that it isn't the holder any more, and ends
// without touching what is another's.
func TestLeaseIsTakenAway(t *testing.T) {
	for name, take := range map[string]func(t *testing.T, o LeaseOptions){
		"by another": func(t *testing.T, o LeaseOptions) {
			patch := []byte(`{"spec":{"holderIdentity":"b"}}`)
			if _, err := cluster.admin.CoordinationV1().Leases(o.Namespace).Patch(t.Context(), o.Name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
				t.Fatal(err)
			}
		},
		"by deletion": func(t *testing.T, o LeaseOptions) {
			if err := cluster.admin.CoordinationV1().Leases(o.Namespace).Delete(t.Context(), o.Name, metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := patient
			o.Namespace, o.Name = namespaceFor(t), "l"
			a := contend(t, o, "a")
			a.awaitHeld(t)
			take(t, o)
			if err := a.awaitEnd(t); err == nil || !strings.Contains(err.Error(), "is lost") {
				t.Errorf("it ended with %v", err)
			}
			l, err := cluster.admin.CoordinationV1().Leases(o.Namespace).Get(t.Context(), o.Name, metav1.GetOptions{})
			if err == nil && *l.Spec.HolderIdentity != "b" || err != nil && !apierrors.IsNotFound(err) {
				t.Errorf("what stays is %v, %v", l, err)
			}
		})
	}
}

// Whoever goes without a word is followed once its time is up.
func TestLeaseOfTheDeadExpires(t *testing.T) {
	o := LeaseOptions{Namespace: namespaceFor(t), Name: "l", Duration: time.Second, RenewDeadline: 500 * time.Millisecond, RetryPeriod: 100 * time.Millisecond}
	dead := newLease(o, "dead", cluster.admin, cluster.admin, fit)
	if err := dead.Create(t.Context(), resourcelock.LeaderElectionRecord{HolderIdentity: "dead", LeaseDurationSeconds: 1}); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	b := contend(t, o, "b")
	b.awaitHeld(t)
	if took := time.Since(began); took < o.Duration {
		t.Errorf("it was followed after %s", took)
	}
	b.stop()
	if err := b.awaitEnd(t); err != nil {
		t.Errorf("b ended with %v", err)
	}
}

// record is a Lease object in memory, and counts what is written to it.
type record struct {
	resourcelock.LeaderElectionRecord
	exists bool
	writes int
}

func (r *record) Get(context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	if !r.exists {
		return nil, nil, apierrors.NewNotFound(schema.GroupResource{Resource: "leases"}, "l")
	}
	c := r.LeaderElectionRecord
	return &c, []byte(c.HolderIdentity), nil
}

func (r *record) Create(ctx context.Context, c resourcelock.LeaderElectionRecord) error {
	return r.Update(ctx, c)
}

func (r *record) Update(_ context.Context, c resourcelock.LeaderElectionRecord) error {
	r.LeaderElectionRecord, r.exists = c, true
	r.writes++
	return nil
}

func (*record) RecordEvent(string) {}
func (*record) Identity() string   { return "a" }
func (*record) Describe() string   { return "n/l" }

// What the election may do to the lease after this replica was stopped for long
// enough for others to have held it.
func TestLeaseAfterASleep(t *testing.T) {
	mine, release := resourcelock.LeaderElectionRecord{HolderIdentity: "a"}, resourcelock.LeaderElectionRecord{}
	for name, tc := range map[string]struct {
		meanwhile func(*record)
		write     resourcelock.LeaderElectionRecord
		wantErr   string
		wantLost  bool
	}{
		"nobody came, renew":             {func(*record) {}, mine, "", false},
		"nobody came, release":           {func(*record) {}, release, "", false},
		"another holds it, renew":        {func(r *record) { r.HolderIdentity = "b" }, mine, "b holds it", true},
		"another holds it, release":      {func(r *record) { r.HolderIdentity = "b" }, release, "isn't this replica's to release", true},
		"another has released it, renew": {func(r *record) { r.HolderIdentity = "" }, mine, "another may have", true},
		"somebody deleted it, renew":     {func(r *record) { r.exists = false }, mine, "another may have", true},
	} {
		t.Run(name, func(t *testing.T) {
			r := &record{}
			clock := &hand{time.Now()}
			l := &lease{Interface: r, fit: fit, fence: &fence{holds: time.Second, now: clock.now}, acquired: make(chan struct{})}
			gaveUp := false
			l.giveUp = func() { gaveUp = true }
			if err := l.Create(t.Context(), mine); err != nil {
				t.Fatal(err)
			}
			clock.Time = clock.Add(time.Hour)
			if l.fence.check() == nil {
				t.Error("an hour later requests pass")
			}
			tc.meanwhile(r)
			writes := r.writes
			_, _, _ = l.Get(t.Context()) // as the election does first; what it finds is what counts
			err := l.Update(t.Context(), tc.write)
			if tc.wantErr == "" && err != nil || tc.wantErr != "" && (err == nil || !strings.Contains(err.Error(), tc.wantErr) || r.writes != writes) {
				t.Errorf("it wrote %d times: %v, want %q", r.writes-writes, err, tc.wantErr)
			}
			if (l.lost != "") != tc.wantLost || gaveUp != tc.wantLost {
				t.Errorf("it has lost: %q, and given up: %v, want %v", l.lost, gaveUp, tc.wantLost)
			}
			if open := l.fence.check() == nil; open != (tc.write == mine && !tc.wantLost) {
				t.Errorf("requests pass: %v", open)
			}
		})
	}
}

// A watch that lags shows the holders before this one: those don't count.
func TestLeaseIgnoresOldNews(t *testing.T) {
	l := &lease{Interface: &record{}, fit: fit, fence: &fence{holds: time.Second, now: time.Now}, acquired: make(chan struct{}), giveUp: func() {}}
	if err := l.Create(t.Context(), resourcelock.LeaderElectionRecord{HolderIdentity: "a"}); err != nil {
		t.Fatal(err)
	}
	for _, old := range []string{"b", ""} {
		if l.seen(old); l.lost != "" {
			t.Fatalf("it was lost by %q, which was before", old)
		}
	}
	l.seen("a")
	if l.seen("b"); l.lost == "" {
		t.Error("it wasn't lost by what came after")
	}
}
