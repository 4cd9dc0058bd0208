package images

import (
	"context"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/mount"
)

// PrepareRootfs makes a fresh writable root for a container and returns the mounts that make it, for the caller to mount: an
// overlay, or a bind mount where overlays don't work or the image has no layers. The image's layers stay until RemoveRootfs, even
// if the image is removed. errdefs.ErrAlreadyExists: the container has a root (see Rootfs); errdefs.ErrNotFound: the image is gone.
//
// An overlay is mounted volatile where the kernel can: it must not be mounted a second time after a reboot, but be removed and made
// anew.
func (s *Store) PrepareRootfs(ctx context.Context, containerID string, img Image) ([]mount.Mount, error) {
	return s.rootfs.prepare(s.context(ctx), containerID, img.ChainID)
}

// RemoveRootfs deletes a container's root and what was written to it. It must be unmounted. Removing what isn't there is no error. If
// the container's image was removed before it, the image's layers go too.
func (s *Store) RemoveRootfs(ctx context.Context, containerID string) error {
	chain, _ := s.rootfs.chainOf(containerID) // none: a removal that was interrupted, or a wrong ID
	if err := s.rootfs.remove(containerID); err != nil {
		return err
	}
	if chain == "" || chain == noLayers || s.index.hasChain(chain) {
		return nil
	}
	return s.collect(s.context(ctx))
}

// Rootfs returns the mounts of the root that PrepareRootfs made, be it before a restart. errdefs.ErrNotFound: there is none.
func (s *Store) Rootfs(ctx context.Context, containerID string) ([]mount.Mount, error) {
	chain, err := s.rootfs.chainOf(containerID)
	if err != nil {
		return nil, err
	}
	below, err := s.rootfs.resolve(s.context(ctx), chain)
	if err != nil {
		return nil, err
	}
	return s.rootfs.mounts(filepath.Join(s.rootfs.dir, containerID), below), nil
}

// ListRootfs returns the IDs of all containers that have a root, sorted: whoever owns the containers can remove those it doesn't know.
func (s *Store) ListRootfs(context.Context) []string { return s.rootfs.list() }
