package images

import (
	"context"
	"fmt"
	"sync"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// What a registry may ask of us. Manifests and configurations are held in memory, layers are not: their bound is the disk.
const (
	// maxManifest is what registries have to take at least, and so the most that one finds (OCI distribution specification,
	// "Pushing Manifests"), in bytes.
	maxManifest = 4 << 20
	// maxConfig is as much, as with podman.
	maxConfig = 4 << 20
	// maxNesting is how many indexes may be within each other. One is what images have.
	maxNesting = 8
)

// checkSize refuses to fetch what is far larger than any such thing. The size told is the true one: the store compares.
func checkSize(_ context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	limit, what := int64(0), ""
	switch {
	case images.IsManifestType(desc.MediaType), images.IsIndexType(desc.MediaType):
		limit, what = maxManifest, "manifest"
	case images.IsConfigType(desc.MediaType), desc.MediaType == docker.LegacyConfigMediaType:
		limit, what = maxConfig, "configuration"
	}
	if limit > 0 && desc.Size > limit {
		return nil, fmt.Errorf("%s: the %s is larger than %d MiB: %d bytes: %w", desc.Digest, what, limit>>20, desc.Size, errdefs.ErrInvalidArgument)
	}
	return nil, nil
}

// limitNesting makes a walk down the children end with an error where indexes are nested too deep.
func limitNesting(children images.HandlerFunc) images.HandlerFunc {
	var mu sync.Mutex
	depth := map[digest.Digest]int{}
	return func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		found, err := children(ctx, desc)
		mu.Lock()
		defer mu.Unlock()
		for _, child := range found {
			if !images.IsIndexType(child.MediaType) {
				continue
			}
			depth[child.Digest] = max(depth[child.Digest], depth[desc.Digest]+1)
			if depth[child.Digest] >= maxNesting {
				return nil, fmt.Errorf("%s: more than %d indexes are nested in each other: %w", child.Digest, maxNesting, errdefs.ErrInvalidArgument)
			}
		}
		return found, err
	}
}
