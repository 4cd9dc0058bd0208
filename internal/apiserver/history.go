package apiserver

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	etcdkubernetes "go.etcd.io/etcd/client/v3/kubernetes"
	"k8s.io/apiserver/pkg/storage/etcd3"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

const (
	// historyInterval is how far back the store remembers old versions of
	// objects, kube-apiserver's default: a list in pages may take that long.
	historyInterval = 5 * time.Minute
	// historyRevisions bounds what is remembered of a busy time: 100,000 pods in
	// a Job would leave half a million versions within the interval, in the
	// database's file, which is mapped, and in etcd's index. A watch cache
	// remembers as much of its own resource, for those who resume a watch.
	historyRevisions = 50_000
)

// history lets the store forget old versions of objects: at each round those
// that were old already at the round before. A round comes each interval, and
// earlier after a number of writes.
type history struct {
	client   *clientv3.Client
	interval time.Duration
	most     int64
	clock    clock.Clock
	// known follows how far all API servers of the store have compacted it.
	known knownCompaction

	latest  atomic.Int64  // the revision of the last write
	rounded atomic.Int64  // the revision at the last round, 0 before the first write
	due     chan struct{} // has an element when a round may be due early
	cancel  context.CancelFunc
	done    sync.WaitGroup
}

// knownCompaction is what etcd3.NewCompactor returns.
type knownCompaction interface {
	etcd3.Compactor
	Stop()
}

// startHistory bounds the history of a store: to one and up to two intervals, and
// no more than one and up to two times most revisions.
func startHistory(client *clientv3.Client, interval time.Duration, most int64, clk clock.Clock) *history {
	ctx, cancel := context.WithCancel(context.Background())
	h := &history{
		client:   client,
		interval: interval,
		most:     most,
		clock:    clk,
		known:    etcd3.NewCompactor(client, 0, clk, nil), // 0: it compacts nothing by itself
		due:      make(chan struct{}, 1),
		cancel:   cancel,
	}
	h.done.Go(func() { h.run(ctx) })
	return h
}

// stop ends the rounds.
func (h *history) stop() {
	h.cancel()
	h.done.Wait()
	h.known.Stop()
}

// CompactRevision implements etcd3.Compactor.
func (h *history) CompactRevision() int64 { return h.known.CompactRevision() }

// wrote is told of the revision that a write made.
func (h *history) wrote(revision int64) {
	for last := h.latest.Load(); revision > last && !h.latest.CompareAndSwap(last, revision); {
		last = h.latest.Load()
	}
	h.rounded.CompareAndSwap(0, revision)
	if h.dueEarly() {
		select {
		case h.due <- struct{}{}:
		default: // the one that is there will find this write, too
		}
	}
}

// dueEarly tells whether there was enough written since the last round.
func (h *history) dueEarly() bool { return h.latest.Load()-h.rounded.Load() >= h.most }

func (h *history) run(ctx context.Context) {
	// Of several API servers on one store only one compacts at a time: the one
	// that knows the round's number.
	var round, revision int64
	timer := h.clock.NewTimer(h.interval)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C():
		case <-h.due:
			if !h.dueEarly() { // the last round came in between
				continue
			}
		}
		var err error
		round, revision, _, err = etcd3.Compact(ctx, h.client, round, revision)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			klog.Background().Error(err, "Old versions of objects could not be dropped from the store; it is tried again later")
			h.rounded.Store(h.latest.Load()) // that is as far away as after a success
		default:
			h.rounded.Store(revision)
		}
		timer.Reset(h.interval)
	}
}

// notedWrites tells a history of each write.
type notedWrites struct {
	etcdkubernetes.Interface
	history *history
}

// OptimisticPut implements etcdkubernetes.Interface.
func (w notedWrites) OptimisticPut(ctx context.Context, key string, value []byte, expected int64, opts etcdkubernetes.PutOptions) (etcdkubernetes.PutResponse, error) {
	resp, err := w.Interface.OptimisticPut(ctx, key, value, expected, opts)
	if err == nil {
		w.history.wrote(resp.Revision)
	}
	return resp, err
}

// OptimisticDelete implements etcdkubernetes.Interface.
func (w notedWrites) OptimisticDelete(ctx context.Context, key string, expected int64, opts etcdkubernetes.DeleteOptions) (etcdkubernetes.DeleteResponse, error) {
	resp, err := w.Interface.OptimisticDelete(ctx, key, expected, opts)
	if err == nil {
		w.history.wrote(resp.Revision)
	}
	return resp, err
}
