package images

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/pkg/gc"
	"github.com/containerd/errdefs"
	"k8s.io/klog/v2"
)

// collect removes every blob, partial download and snapshot that no image, pull or container needs.
func (s *Store) collect(ctx context.Context) error {
	s.gcMu.Lock()
	defer s.gcMu.Unlock()
	var stats gc.Stats
	err := s.reserve.during(func() (err error) {
		stats, err = s.db.GarbageCollect(context.WithoutCancel(ctx))
		return err
	})
	if err != nil {
		return fmt.Errorf("collect unused image content: %w", err)
	}
	klog.FromContext(ctx).V(4).Info("Collected unused image content", "took", stats.Elapsed())
	return nil
}

// Prune removes what nothing refers to: content without an image, a running pull or a container that needs it. Images with a
// name stay. It returns how much space that freed. It is never needed for correctness: removing an image and failing to pull
// one clean up after themselves.
func (s *Store) Prune(ctx context.Context) (freed Usage, err error) {
	ctx = s.context(ctx)
	before, err := s.imageUsage(ctx)
	if err != nil {
		return Usage{}, err
	}
	if err := s.collect(ctx); err != nil {
		return Usage{}, err
	}
	after, err := s.imageUsage(ctx)
	if err != nil {
		return Usage{}, err
	}
	return Usage{Bytes: before.Bytes - after.Bytes, Inodes: before.Inodes - after.Inodes}, nil
}

// Remove takes an image, or one of its names, away:
//
//   - by ID, or the first digits of it: the image with all its names;
//   - by tag: that tag; with the repository's last tag its digests go too, and with the last name the image;
//   - by digest: that digest; with the last name the image.
//
// Containers that run from the image go on; its layers are kept for as long as they exist. A missing image is no error.
func (s *Store) Remove(ctx context.Context, ref string) error {
	ctx = s.context(ctx)
	lease, err := s.removeNames(ctx, ref)
	if err != nil || lease == "" {
		return err
	}
	defer s.endLease(ctx, lease, false)
	return s.collect(ctx)
}

// removeNames takes away what ref says. If that was an image's last name, it returns a lease, made in the same transaction, that holds
// nothing: should we be killed before the collection, the next start finds the lease and collects.
func (s *Store) removeNames(ctx context.Context, ref string) (lease string, err error) {
	s.nameMu.Lock()
	defer s.nameMu.Unlock()
	img, err := s.index.get(ref)
	if errdefs.IsNotFound(err) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	drop := namesToDrop(img.names, ref)
	err = s.update(ctx, func(ctx context.Context) error {
		if len(drop) == len(img.names) {
			l, err := s.leases.Create(ctx, leases.WithID(rand.Text()))
			if err != nil {
				return fmt.Errorf("create lease: %w", err)
			}
			lease = l.ID
		}
		return s.deleteNames(ctx, drop)
	})
	if err != nil {
		return "", err
	}
	s.index.remove(drop...)
	return lease, nil
}

// namesToDrop decides which of an image's names go when it is removed by ref.
func namesToDrop(names []string, ref string) []string {
	named, err := parseRef(ref)
	if err != nil || !slices.Contains(names, named.String()) {
		return names // by ID
	}
	name := named.String()
	drop := []string{name}
	if !isDigestRef(name) {
		repo := named.Name()
		inRepo := func(n string) bool { return n != name && !isID(n) && repository(n) == repo }
		if !slices.ContainsFunc(names, func(n string) bool { return inRepo(n) && !isDigestRef(n) }) {
			for _, n := range names {
				if inRepo(n) {
					drop = append(drop, n)
				}
			}
		}
	}
	left := slices.ContainsFunc(names, func(n string) bool { return !isID(n) && !slices.Contains(drop, n) })
	if !left {
		return names
	}
	return drop
}

// snapshotKey is how the collector calls a snapshot.
func (b backend) snapshotKey(chainID string) string {
	return strings.Join([]string{b.name, chainID}, "/")
}
