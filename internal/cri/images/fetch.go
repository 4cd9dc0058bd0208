package images

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/diff/apply"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/unpack"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
)

// fetch brings what desc names, for our platform, into the content store and unpacks it: layers are fetched side by side and
// unpacked from the bottom up as they come. It returns what names should point to: desc, or what it was converted to. Everything is
// on disk when it returns. ctx carries a lease.
func (s *Store) fetch(ctx context.Context, desc ocispec.Descriptor, from remotes.Fetcher, m *meter) (ocispec.Descriptor, error) {
	var legacy atomic.Bool
	note := images.HandlerFunc(func(_ context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		if desc.MediaType == docker.LegacyConfigMediaType {
			legacy.Store(true)
		}
		return nil, nil
	})
	if err := s.unpack(ctx, desc, images.HandlerFunc(checkSize), s.fetchHandler(from, m), s.expectChildren(m), note); err != nil {
		return desc, err
	}
	if legacy.Load() {
		// Registries of docker's before 1.10 give a config no type of its own.
		return docker.ConvertManifest(ctx, s.content, desc)
	}
	return desc, nil
}

// fetchHandler fetches one blob. A blob that isn't what its digest says is thrown away, lest the next attempt "resume" it.
func (s *Store) fetchHandler(from remotes.Fetcher, m *meter) images.HandlerFunc {
	fetch := remotes.FetchHandler(s.content, meteredFetcher{from, m})
	return func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		children, err := fetch(ctx, desc)
		if errdefs.IsFailedPrecondition(err) {
			abort := s.content.Abort(context.WithoutCancel(ctx), remotes.MakeRefKey(ctx, desc))
			if abort != nil && !errdefs.IsNotFound(abort) {
				err = errors.Join(err, abort)
			}
		}
		if err == nil {
			m.reached(desc.Digest, desc.Size) // also where another pull brought it
		}
		return children, err
	}
}

// unpack walks from desc to the layers for our platform, calling the handlers with each descriptor before its children are looked
// for, and unpacks the layers. What was unpacked is flushed to disk before it returns.
func (s *Store) unpack(ctx context.Context, desc ocispec.Descriptor, handlers ...images.Handler) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a := &applier{Applier: apply.NewFileSystemApplier(s.content), overlay: s.backend.overlay()}
	unpacker, err := unpack.NewUnpacker(ctx, s.content,
		unpack.WithUnpackPlatform(unpack.Platform{
			Platform:       platforms.All, // the manifest was chosen by platform; some configs lie about theirs
			SnapshotterKey: s.backend.name,
			Snapshotter:    s.db.Snapshotter(s.backend.name),
			Applier:        a,
		}),
		unpack.WithLimiter(semaphore.NewWeighted(int64(s.cfg.MaxConcurrentDownloads))),
		unpack.WithDuplicationSuppressor(s.keys),
	)
	if err != nil {
		return fmt.Errorf("unable to initialize unpacker: %w", err)
	}
	children := images.SetChildrenLabels(s.content, images.ChildrenHandler(s.content))
	children = limitNesting(images.LimitManifests(images.FilterPlatforms(children, s.platform), s.platform, 1))
	handler := unpacker.Unpack(images.Handlers(append(handlers, children)...))
	if err := images.Dispatch(ctx, handler, nil, desc); err != nil {
		cancel()
		_, _ = unpacker.Wait() // for it to end; its error is a consequence of err
		return err
	}
	if _, err := unpacker.Wait(); err != nil {
		return err
	}
	if a.applied.Load() == 0 {
		return nil
	}
	return s.flush(ctx)
}

// flush waits until the unpacked layers are on disk. They are thousands of files that nobody has synced: without this, a power cut
// soon after leaves an image that looks whole and has empty files. One flush of the file system is far cheaper than one per file.
func (s *Store) flush(ctx context.Context) error {
	start := s.cfg.Clock.Now()
	dir, err := os.Open(s.cfg.Root)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		return fmt.Errorf("write the unpacked image to disk: %w", err)
	}
	klog.FromContext(ctx).V(4).Info("Flushed an unpacked image", "took", s.cfg.Clock.Since(start))
	return nil
}

// applier unpacks layers, and counts them.
type applier struct {
	diff.Applier
	overlay bool
	applied atomic.Int32
}

// Apply implements diff.Applier. The lowest layer of an overlay comes as a bind mount, which would have to be mounted for the
// purpose: say what directory it is instead, as for the layers above it.
func (a *applier) Apply(ctx context.Context, desc ocispec.Descriptor, mounts []mount.Mount, opts ...diff.ApplyOpt) (ocispec.Descriptor, error) {
	a.applied.Add(1)
	if a.overlay && len(mounts) == 1 && mounts[0].Type == "bind" && !mounts[0].ReadOnly() {
		mounts = []mount.Mount{{Type: "overlay", Source: "overlay", Options: []string{"upperdir=" + mounts[0].Source}}}
	}
	applied, err := a.Applier.Apply(ctx, desc, mounts, opts...)
	if noSpace(err) && a.overlay {
		// The half-made layer is removed in any case, but only once the databases could write that down: give them the room.
		for _, o := range mounts[0].Options {
			if dir, ok := strings.CutPrefix(o, "upperdir="); ok {
				err = errors.Join(err, removeContents(dir))
			}
		}
	}
	return applied, err
}

func removeContents(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return err
}

// unpackAgain unpacks an image from the content store: it was loaded from an archive, or unpacked for another snapshotter.
func (s *Store) unpackAgain(ctx context.Context, img Image) error {
	return s.withLease(ctx, "", func(ctx context.Context) error { return s.unpack(ctx, img.target) })
}

// name makes what is unpacked an image. The caller's lease holds its content.
func (s *Store) name(ctx context.Context, target ocispec.Descriptor, names []string) (Image, error) {
	img, err := s.readImage(ctx, target)
	if err != nil {
		return Image{}, err
	}
	if !s.rootfs.unpacked(ctx, img.ChainID) {
		// A converted manifest, or one whose layers the unpacker didn't recognise.
		if err := s.unpack(ctx, target); err != nil {
			return Image{}, err
		}
		if !s.rootfs.unpacked(ctx, img.ChainID) {
			return Image{}, fmt.Errorf("the layers of %s are of a kind that can't be unpacked: %w", target.Digest, errdefs.ErrInvalidArgument)
		}
	}
	s.nameMu.Lock()
	defer s.nameMu.Unlock()
	// Who has given up was told that there is no image.
	if err := ctx.Err(); err != nil {
		return Image{}, err
	}
	if err := s.setNames(ctx, img, names); err != nil {
		return Image{}, err
	}
	return s.index.get(img.ID)
}
