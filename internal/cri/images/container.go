package images

import (
	"context"
	"path/filepath"
	"slices"

	"github.com/containerd/containerd/v2/core/mount"

	"errand.dev/errand/internal/cri/idmap"
)

// RootOptions are a container's wishes for its root.
type RootOptions struct {
	// Users are a user namespace's: the caller mounts the root with the files' owners mapped to it, which an overlay's upper
	// directory isn't: what is written there belongs to the host's IDs, first of all the directory itself. nil: the host's users.
	Users *idmap.Mapping
	// MountPoints are the places where something is going to be mounted, none of them below another. An overlay has them then,
	// unless the image has something else there; otherwise it is up to whoever mounts to make them.
	MountPoints []MountPoint
}

// PrepareRootfs makes a fresh writable root for a container and returns the mounts that make it, for the caller to mount: an
// overlay, or a bind mount where overlays don't work or the image has no layers. The image's layers stay until RemoveRootfs, even
// if the image is removed. errdefs.ErrAlreadyExists: the container has a root (see Rootfs); errdefs.ErrNotFound: the image is gone.
//
// An overlay is mounted volatile where the kernel can: it must not be mounted a second time after a reboot, but be removed and made
// anew.
func (s *Store) PrepareRootfs(ctx context.Context, containerID string, img Image, o RootOptions) ([]mount.Mount, error) {
	return s.rootfs.prepare(s.context(ctx), containerID, img.ChainID, o)
}

// RemoveRootfs deletes a container's root and what was written to it. It must be unmounted. Removing what isn't there is no error. If
// the container's image, or one that it mounted, was removed before it, the image's layers go too.
func (s *Store) RemoveRootfs(ctx context.Context, containerID string) error {
	chains := s.rootfs.chainsOf(containerID) // none: a removal that was interrupted, or a wrong ID
	if err := s.rootfs.remove(containerID); err != nil {
		return err
	}
	if !slices.ContainsFunc(chains, func(chain string) bool { return chain != noLayers && !s.index.hasChain(chain) }) {
		return nil
	}
	return s.collect(s.context(ctx))
}

// PrepareImageVolume returns the mounts that show an image's files, read-only, to a container that has a root and mounts the image as a
// volume (KEP-4639); the caller mounts them. name tells the container's volumes apart. The image's layers stay until RemoveRootfs, by
// when the mounts must be gone. errdefs.ErrNotFound: the image or the container's root is gone; errdefs.ErrAlreadyExists: there is a
// volume of that name; errdefs.ErrInvalidArgument: name can't be a file's.
func (s *Store) PrepareImageVolume(ctx context.Context, containerID, name string, img Image) ([]mount.Mount, error) {
	return s.rootfs.prepareVolume(s.context(ctx), containerID, name, img.ChainID)
}

// Rootfs returns the mounts of the root that PrepareRootfs made, be it before a restart. errdefs.ErrNotFound: there is none.
func (s *Store) Rootfs(ctx context.Context, containerID string) ([]mount.Mount, error) {
	base, err := s.rootfs.baseOf(containerID)
	if err != nil {
		return nil, err
	}
	below, err := s.rootfs.resolve(s.context(ctx), base)
	if err != nil {
		return nil, err
	}
	return s.rootfs.mounts(filepath.Join(s.rootfs.dir, containerID), below), nil
}

// ListRootfs returns the IDs of all containers that have a root, sorted: whoever owns the containers can remove those it doesn't know.
func (s *Store) ListRootfs(context.Context) []string { return s.rootfs.list() }
