package images

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
)

// prepareVolume shows the snapshot chainID to a container that has a root.
func (k *rootfsKeeper) prepareVolume(ctx context.Context, id, name, chainID string) ([]mount.Mount, error) {
	if !containerID.MatchString(name) {
		return nil, fmt.Errorf("image volume %q can't name a file: %w", name, errdefs.ErrInvalidArgument)
	}
	if chainID == "" {
		chainID = noLayers
	}
	if err := k.claimVolume(id, chainID); err != nil {
		return nil, err
	}
	below, err := k.resolveChain(ctx, chainID)
	if err != nil {
		return nil, err
	}
	switch err := os.Symlink(chainID, filepath.Join(k.dir, id, volumeLink+name)); {
	case os.IsExist(err):
		return nil, fmt.Errorf("the image volume %s of container %s: %w", name, id, errdefs.ErrAlreadyExists)
	case err != nil:
		return nil, fmt.Errorf("note the image volume %s of container %s: %w", name, id, err)
	}
	return k.view(below), nil
}

// claimVolume makes chainID's layers safe from collection until the container's root is removed.
func (k *rootfsKeeper) claimVolume(id, chainID string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, ok := k.users[id]; !ok {
		return fmt.Errorf("the root of container %s: %w", id, errdefs.ErrNotFound)
	}
	k.volumes[id] = append(k.volumes[id], chainID)
	return nil
}

// view returns what mounts layers read-only.
func (k *rootfsKeeper) view(below layers) []mount.Mount {
	options := []string{"ro"}
	switch {
	case len(below.dirs) == 0:
		return []mount.Mount{{Type: "tmpfs", Source: "tmpfs", Options: append(options, "mode=755")}}
	case len(below.dirs) == 1:
		return []mount.Mount{{Type: "bind", Source: below.dirs[0], Options: append(options, "rbind")}}
	}
	// Volatile is for what is written.
	options = append(options, slices.DeleteFunc(slices.Clone(k.backend.overlayOptions), func(o string) bool { return o == "volatile" })...)
	return []mount.Mount{{Type: "overlay", Source: "overlay", Options: append([]string{"lowerdir=" + strings.Join(below.dirs, ":")}, options...)}}
}

// volumeLinks are the names of the symlinks in a container's directory that tell of its image volumes.
func volumeLinks(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		return nil, fmt.Errorf("read a container's root: %w", err)
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), volumeLink) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// volumeChains are what those symlinks name.
func volumeChains(dir string) ([]string, error) {
	names, err := volumeLinks(dir)
	if err != nil {
		return nil, err
	}
	var chains []string
	for _, name := range names {
		chain, err := os.Readlink(filepath.Join(dir, name))
		if err != nil {
			return nil, fmt.Errorf("read a container's root: %w", err)
		}
		chains = append(chains, chain)
	}
	return chains, nil
}
