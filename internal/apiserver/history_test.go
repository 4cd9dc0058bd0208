package apiserver

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	etcdkubernetes "go.etcd.io/etcd/client/v3/kubernetes"
	testclock "k8s.io/utils/clock/testing"

	"errand.dev/errand/internal/apiserver/etcd"
)

// historyRig is a store with a history of its own, and no API server.
type historyRig struct {
	t      *testing.T
	client *clientv3.Client
	writes etcdkubernetes.Interface
	clock  *testclock.FakeClock
	// compactions are the revisions that the store was compacted to.
	compactions clientv3.WatchChan
}

func newHistoryRig(t *testing.T, most int64) *historyRig {
	t.Helper()
	member, err := etcd.Start(t.Context(), etcd.Config{Dir: t.TempDir(), SocketDir: t.TempDir(), QuotaBytes: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := member.Close(); err != nil {
			t.Error(err)
		}
	})
	r := &historyRig{t: t, client: member.Client(), clock: testclock.NewFakeClock(time.Now())}
	kube := &etcdkubernetes.Client{Client: r.client}
	h := startHistory(r.client, time.Minute, most, r.clock)
	t.Cleanup(h.stop)
	r.writes = notedWrites{kube, h}
	r.compactions = r.client.Watch(context.WithoutCancel(t.Context()), "compact_rev_key")
	return r
}

// write makes n versions of a key and returns the revision of the last.
func (r *historyRig) write(n int) (revision int64) {
	r.t.Helper()
	for range n {
		before, err := r.writes.Get(r.t.Context(), "key", etcdkubernetes.GetOptions{})
		if err != nil {
			r.t.Fatal(err)
		}
		var at int64
		if before.KV != nil {
			at = before.KV.ModRevision
		}
		resp, err := r.writes.OptimisticPut(r.t.Context(), "key", []byte("value"), at, etcdkubernetes.PutOptions{})
		if err != nil || !resp.Succeeded {
			r.t.Fatalf("write: %+v, %v", resp, err)
		}
		revision = resp.Revision
	}
	return revision
}

// round waits for the end of a round.
func (r *historyRig) round() {
	r.t.Helper()
	select {
	case <-r.compactions:
	case <-time.After(10 * time.Second):
		r.t.Fatal("no round of compaction came")
	}
}

// remembers tells whether the store can be read as it was at a revision.
func (r *historyRig) remembers(revision int64) bool {
	r.t.Helper()
	_, err := r.client.Get(r.t.Context(), "key", clientv3.WithRev(revision))
	if err != nil && !errors.Is(err, rpctypes.ErrCompacted) {
		r.t.Fatal(err)
	}
	return err == nil
}

// rounds is how many rounds there have been.
func (r *historyRig) rounds() int64 {
	r.t.Helper()
	resp, err := r.client.Get(r.t.Context(), "compact_rev_key")
	if err != nil {
		r.t.Fatal(err)
	}
	if len(resp.Kvs) == 0 {
		return 0
	}
	return resp.Kvs[0].Version
}

// forgets waits until the store can't be read any more as it was at a revision.
func (r *historyRig) forgets(revision int64) {
	r.t.Helper()
	eventually(r.t, func() error {
		if r.remembers(revision) {
			return fmt.Errorf("revision %d is still remembered", revision)
		}
		return nil
	})
}

// Many writes within the interval don't stay for all of it, but as many as are promised do.
func TestHistoryIsBoundedByWrites(t *testing.T) {
	const most = 10
	r := newHistoryRig(t, most)
	first := r.write(1)
	for round := int64(1); round <= 5; round++ {
		last := r.write(most)
		r.round()
		if !r.remembers(last - most) {
			t.Errorf("round %d: of the last %d writes not all are remembered", round, most)
		}
		// What the round itself writes is a revision, too.
		if got := r.rounds(); got != round {
			t.Fatalf("%d rounds after %d × %d writes", got, round, most)
		}
	}
	r.forgets(first)
}

// A store with few writes forgets by time.
func TestHistoryIsBoundedByTime(t *testing.T) {
	r := newHistoryRig(t, 1000)
	first := r.write(1)
	for range 2 {
		r.write(5)
		eventually(t, func() error {
			if !r.clock.HasWaiters() {
				return errors.New("nobody waits for the interval")
			}
			return nil
		})
		if !r.remembers(first) {
			t.Error("forgotten within the interval")
		}
		r.clock.Step(time.Minute)
		r.round()
	}
	r.forgets(first)
}

// The API server's writes are those that count.
func TestHistoryKnowsTheServersWrites(t *testing.T) {
	ns := namespace(t, nil)
	pod := mustCreatePod(t, ns, makePod("p"))
	made, err := strconv.ParseInt(pod.ResourceVersion, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	if got := shared.server.options.history.rounded.Load(); got == 0 || got > made {
		t.Errorf("the history's first write is %d, a pod was made at %d", got, made)
	}
}
