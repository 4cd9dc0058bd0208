package images

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"k8s.io/klog/v2"
)

// minIDPrefix is how many hex digits of an ID must be given at least.
const minIDPrefix = 4

// index is the database's names in memory, so that looking an image up costs neither a transaction nor parsing. It follows the
// database: names are written there first.
type index struct {
	mu     sync.RWMutex
	byID   map[string]*Image
	byName map[string]string // name → ID
	pinned map[string]bool
}

// loadIndex reads the names in the database. A name whose content is gone or unreadable is dropped: the image is pulled anew
// rather than failing containers later.
func (s *Store) loadIndex(ctx context.Context) (*index, error) {
	ix := &index{byID: map[string]*Image{}, byName: map[string]string{}, pinned: map[string]bool{}}
	for _, name := range s.cfg.PinnedImages {
		named, err := parseRef(name)
		if err != nil {
			return nil, fmt.Errorf("pinned image: %w", err)
		}
		ix.pinned[named.String()] = true
	}
	records, err := s.names.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	read := map[digest.Digest]Image{}
	var dropped []string
	for _, r := range records {
		img, ok := read[r.Target.Digest]
		if !ok {
			if img, err = s.readWhole(ctx, r.Target); err != nil {
				klog.FromContext(ctx).Info("Dropping an image that is not whole; it will be pulled anew", "image", r.Name, "reason", err.Error())
				dropped = append(dropped, r.Name)
				continue
			}
			read[r.Target.Digest] = img
		}
		img.PulledAt = r.CreatedAt
		ix.add(img, r.Name)
	}
	if len(dropped) == 0 {
		return ix, nil
	}
	err = s.update(ctx, func(ctx context.Context) error { return s.deleteNames(ctx, dropped) })
	if err != nil {
		return nil, err
	}
	// At once: the database still says that the missing content is there, and a pull would believe it.
	return ix, s.collect(ctx)
}

// readWhole reads an image and makes sure that it is unpacked.
func (s *Store) readWhole(ctx context.Context, target ocispec.Descriptor) (Image, error) {
	img, err := s.readImage(ctx, target)
	if err != nil || s.rootfs.unpacked(ctx, img.ChainID) {
		return img, err
	}
	return img, s.unpackAgain(ctx, img)
}

// add gives img another name, taking it from whatever image had it.
func (ix *index) add(img Image, names ...string) {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	for _, name := range names {
		ix.removeLocked(name)
		have, ok := ix.byID[img.ID]
		if !ok {
			fresh := img
			fresh.names = nil
			have = &fresh
			ix.byID[img.ID] = have
		}
		// One image may be known by several digests: an index that changed for other platforms only. The latest counts.
		have.Target, have.target = img.Target, img.target
		if img.PulledAt.Before(have.PulledAt) {
			have.PulledAt = img.PulledAt
		}
		have.names = append(slices.Clone(have.names), name)
		ix.byName[name] = img.ID
		ix.describe(have)
	}
}

// remove takes names away; an image without any is gone.
func (ix *index) remove(names ...string) {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	for _, name := range names {
		ix.removeLocked(name)
	}
}

func (ix *index) removeLocked(name string) {
	id, ok := ix.byName[name]
	if !ok {
		return
	}
	delete(ix.byName, name)
	img := ix.byID[id]
	img.names = slices.DeleteFunc(slices.Clone(img.names), func(n string) bool { return n == name })
	if len(img.names) == 0 {
		delete(ix.byID, id)
		return
	}
	ix.describe(img)
}

// describe derives from an image's names what is shown of it. The slices are made anew: copies handed out earlier share them.
func (ix *index) describe(img *Image) {
	img.RepoTags, img.RepoDigests, img.Pinned = nil, nil, false
	sort.Strings(img.names)
	for _, name := range img.names {
		switch {
		case isID(name):
		case isDigestRef(name):
			img.RepoDigests = append(img.RepoDigests, name)
		default:
			img.RepoTags = append(img.RepoTags, name)
		}
		img.Pinned = img.Pinned || ix.pinned[name]
	}
}

// get finds an image by ID, by name, or by the first digits of its ID.
func (ix *index) get(ref string) (Image, error) {
	ix.mu.RLock()
	defer ix.mu.RUnlock()
	if img, ok := ix.byID[ref]; ok {
		return *img, nil
	}
	if named, err := parseRef(ref); err == nil {
		if id, ok := ix.byName[named.String()]; ok {
			return *ix.byID[id], nil
		}
	}
	prefix := "sha256:" + strings.TrimPrefix(ref, "sha256:")
	if len(prefix) < len("sha256:")+minIDPrefix {
		return Image{}, fmt.Errorf("image %q: %w", ref, errdefs.ErrNotFound)
	}
	var found *Image
	for id, img := range ix.byID {
		if strings.HasPrefix(id, prefix) {
			if found != nil {
				return Image{}, fmt.Errorf("image ID %q is ambiguous: %w", ref, errdefs.ErrInvalidArgument)
			}
			found = img
		}
	}
	if found == nil {
		return Image{}, fmt.Errorf("image %q: %w", ref, errdefs.ErrNotFound)
	}
	return *found, nil
}

// byTarget finds the image that a registry or archive knows by the digest target.
func (ix *index) byTarget(target digest.Digest) (Image, bool) {
	ix.mu.RLock()
	defer ix.mu.RUnlock()
	for _, img := range ix.byID {
		if img.Target == target {
			return *img, true
		}
	}
	return Image{}, false
}

// hasChain reports whether an image's topmost layer is chainID.
func (ix *index) hasChain(chainID string) bool {
	ix.mu.RLock()
	defer ix.mu.RUnlock()
	for _, img := range ix.byID {
		if img.ChainID == chainID {
			return true
		}
	}
	return false
}

// list returns all images, sorted by ID.
func (ix *index) list() []Image {
	ix.mu.RLock()
	defer ix.mu.RUnlock()
	out := make([]Image, 0, len(ix.byID))
	for _, img := range ix.byID {
		out = append(out, *img)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].ID < out[j].ID })
	return out
}

// setNames points names, and the image's ID, at img: in one transaction on disk, then in the index. Names that already do are
// not written again. The caller holds nameMu.
func (s *Store) setNames(ctx context.Context, img Image, names []string) error {
	names = append(slices.Clone(names), img.ID)
	have, err := s.index.get(img.ID)
	known := err == nil && have.Target == img.Target
	names = slices.DeleteFunc(names, func(n string) bool { return known && slices.Contains(have.names, n) })
	if len(names) == 0 {
		return nil
	}
	err = s.update(ctx, func(ctx context.Context) error {
		for _, name := range names {
			record := images.Image{Name: name, Target: img.target}
			_, err := s.names.Create(ctx, record)
			if errdefs.IsAlreadyExists(err) {
				_, err = s.names.Update(ctx, record, "target")
			}
			if err != nil {
				return fmt.Errorf("name image %s %q: %w", img.ID, name, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	img.PulledAt = s.cfg.Clock.Now()
	s.index.add(img, names...)
	return nil
}

// deleteNames removes names from disk. ctx carries the transaction.
func (s *Store) deleteNames(ctx context.Context, names []string) error {
	for _, name := range names {
		if err := s.names.Delete(ctx, name); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("remove image name %q: %w", name, err)
		}
	}
	return nil
}

// Get finds an image by name ("busybox", "quay.io/x/y@sha256:…"), by ID, or by the first digits of its ID. The error is
// errdefs.ErrNotFound if there is none, errdefs.ErrInvalidArgument if the digits fit several.
func (s *Store) Get(_ context.Context, ref string) (Image, error) { return s.index.get(ref) }

// List returns all images, sorted by ID.
func (s *Store) List(context.Context) []Image { return s.index.list() }
