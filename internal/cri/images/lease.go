package images

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata/boltutil"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

// labelKey is a lease's label that says what a later attempt at the same asks for.
const labelKey = "errand.dev/pull"

// parkingLot keeps the leases of pulls that were interrupted (cancelled, the network failed, or errand was killed), so that the next
// attempt goes on where they stopped.
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
		opts := []leases.Opt{leases.WithID(rand.Text())}
		if key != "" {
			opts = append(opts, leases.WithLabel(labelKey, key))
		}
		lease, err := s.leases.Create(ctx, opts...)
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

// takeUpUnfinished parks what pulls of an earlier process have fetched, and drops what they have unpacked. Nobody else uses the
// database, so every lease in it is such a pull's.
func (s *Store) takeUpUnfinished(ctx context.Context) error {
	stale, err := s.leases.List(ctx)
	if err != nil {
		return fmt.Errorf("list leases: %w", err)
	}
	if len(stale) == 0 {
		return nil
	}
	kept := map[string]string{} // key → ID
	err = s.update(ctx, func(ctx context.Context) error {
		for _, l := range stale {
			key, fetched := l.Labels[labelKey], false
			if key != "" && kept[key] == "" {
				if fetched, err = s.keepFetched(ctx, l); err != nil {
					return err
				}
			}
			if fetched {
				kept[key] = l.ID
			} else if err := s.leases.Delete(ctx, l); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("take up what was left unfinished: %w", err)
	}
	// At once, not later: a layer that a crash left half on disk must be gone before a pull finds its snapshot.
	if err := s.collect(ctx); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	for key, id := range kept {
		s.parked.put(key, id, s.cfg.Clock, func() { s.endLease(ctx, id, true) })
	}
	return nil
}

// keepFetched lets go of a lease's unpacked layers, whose files nobody has flushed, and tells whether it holds anything else. Blobs are
// flushed before they count as fetched, and of a part of one the digest is computed anew when it is gone on with.
func (s *Store) keepFetched(ctx context.Context, lease leases.Lease) (bool, error) {
	held, err := s.leases.ListResources(ctx, lease)
	if err != nil {
		return false, err
	}
	fetched := false
	for _, r := range held {
		switch {
		case strings.HasPrefix(r.Type, "snapshots/"):
			err = s.leases.DeleteResource(ctx, lease, r)
		case r.Type == "content":
			fetched = true
			err = s.forgetUnpacked(ctx, digest.Digest(r.ID))
		default:
			fetched = true
		}
		if err != nil {
			return false, err
		}
	}
	return fetched, nil
}

// forgetUnpacked has a configuration that is no image's yet hold no layers: the unpacker writes at its end which those are.
func (s *Store) forgetUnpacked(ctx context.Context, dgst digest.Digest) error {
	if _, err := s.names.Get(ctx, dgst.String()); !errdefs.IsNotFound(err) {
		return err // an image's
	}
	info, err := s.content.Info(ctx, dgst)
	if err != nil {
		if errdefs.IsNotFound(err) {
			return nil // lost; it will be fetched anew
		}
		return err
	}
	for label := range info.Labels {
		if strings.HasPrefix(label, "containerd.io/gc.ref.snapshot.") {
			change := content.Info{Digest: dgst, Labels: map[string]string{label: ""}}
			if _, err := s.content.Update(ctx, change, "labels."+label); err != nil {
				return err
			}
		}
	}
	return nil
}

// update runs fn within one write transaction: all of its changes reach the disk together, with one flush.
func (s *Store) update(ctx context.Context, fn func(context.Context) error) error {
	return s.reserve.during(func() error {
		return s.db.Update(func(tx *bolt.Tx) error { return fn(boltutil.WithTransaction(ctx, tx)) })
	})
}
