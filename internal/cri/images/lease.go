package images

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata/boltutil"
	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

// parkingLot keeps the leases of pulls that were interrupted (cancelled, or the network failed), so that the next attempt goes
// on where they stopped. It is of this process only: after a restart everything unfinished is dropped, since what a crash left
// on disk is not to be trusted.
type parkingLot struct {
	mu      sync.Mutex
	closed  bool
	spots   map[string]parkedLease
	expired sync.WaitGroup
}

type parkedLease struct {
	id    string
	timer clock.Timer
}

// take returns the lease parked under key, "" if there is none.
func (p *parkingLot) take(key string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	spot, ok := p.spots[key]
	if !ok {
		return ""
	}
	spot.timer.Stop()
	delete(p.spots, key)
	return spot.id
}

// put parks a lease until it is taken or parkedLife is over: then end is called, once. It returns false if the place is taken.
func (p *parkingLot) put(key, id string, c clock.WithDelayedExecution, end func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.spots[key]; ok || p.closed {
		return false
	}
	if p.spots == nil {
		p.spots = map[string]parkedLease{}
	}
	p.spots[key] = parkedLease{id: id, timer: c.AfterFunc(parkedLife, func() {
		if p.expire(key, id) {
			defer p.expired.Done()
			end()
		}
	})}
	return true
}

func (p *parkingLot) expire(key, id string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.spots[key].id != id {
		return false
	}
	delete(p.spots, key)
	p.expired.Add(1)
	return true
}

// close forgets all leases and waits for those that are just being ended.
func (p *parkingLot) close() {
	p.mu.Lock()
	p.closed = true
	for key, spot := range p.spots {
		spot.timer.Stop()
		delete(p.spots, key)
	}
	p.mu.Unlock()
	p.expired.Wait()
}

// withLease runs fn with a lease in its context, under which everything that it fetches and unpacks is safe from collection.
// When fn succeeded, names keep what matters, and the lease ends. When it failed in a way that the next attempt may get over,
// what it got so far is kept for that attempt, if key isn't ""; else it is removed before withLease returns.
func (s *Store) withLease(ctx context.Context, key string, fn func(context.Context) error) error {
	id := ""
	if key != "" {
		id = s.parked.take(key)
	}
	if id == "" {
		lease, err := s.leases.Create(ctx, leases.WithID(rand.Text()))
		if err != nil {
			return fmt.Errorf("create lease: %w", err)
		}
		id = lease.ID
	}
	err := fn(leases.WithLease(ctx, id))
	ctx = context.WithoutCancel(ctx)
	if err != nil && key != "" && resumable(err) {
		if s.parked.put(key, id, s.cfg.Clock, func() { s.endLease(ctx, id, true) }) {
			return err
		}
	}
	if noSpace(err) {
		s.reserve.release()
		defer s.reserve.keep()
	}
	s.endLease(ctx, id, err != nil)
	return err
}

// endLease deletes a lease. It has nobody to report a failure to: at worst garbage stays until the next start.
func (s *Store) endLease(ctx context.Context, id string, collect bool) {
	logger := klog.FromContext(ctx)
	if err := s.leases.Delete(ctx, leases.Lease{ID: id}); err != nil && !errdefs.IsNotFound(err) {
		logger.Error(err, "Can't delete the lease of an image pull")
	}
	if collect {
		if err := s.collect(ctx); err != nil {
			logger.Error(err, "Can't collect what an image pull left")
		}
	}
}

// forgetUnfinished drops what pulls of an earlier process left unfinished. Nobody else uses the database, so every lease in it is
// such a pull's.
func (s *Store) forgetUnfinished(ctx context.Context) error {
	stale, err := s.leases.List(ctx)
	if err != nil {
		return fmt.Errorf("list leases: %w", err)
	}
	if len(stale) == 0 {
		return nil
	}
	err = s.update(ctx, func(ctx context.Context) error {
		for _, l := range stale {
			if err := s.leases.Delete(ctx, l); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("delete stale leases: %w", err)
	}
	// At once, not later: a layer that a crash left half on disk must be gone before a pull finds its snapshot.
	return s.collect(ctx)
}

// update runs fn within one write transaction: all of its changes reach the disk together, with one flush.
func (s *Store) update(ctx context.Context, fn func(context.Context) error) error {
	return s.reserve.during(func() error {
		return s.db.Update(func(tx *bolt.Tx) error { return fn(boltutil.WithTransaction(ctx, tx)) })
	})
}
