package images

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/snapshots"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"errand.dev/errand/internal/fstree"
)

// Usage is space taken on disk.
type Usage struct {
	// Bytes allocated.
	Bytes int64
	// Inodes in use.
	Inodes int64
}

func (u *Usage) add(bytes, inodes int64) {
	u.Bytes += bytes
	u.Inodes += inodes
}

// imageUsage is what images take: blobs as they were fetched, and unpacked layers. It is read from the databases; no directory is
// walked.
func (s *Store) imageUsage(ctx context.Context) (Usage, error) {
	var total Usage
	err := s.content.Walk(ctx, func(info content.Info) error {
		total.add(info.Size, 1)
		return nil
	})
	if err != nil {
		return Usage{}, fmt.Errorf("measure image content: %w", err)
	}
	sn := s.db.Snapshotter(s.backend.name)
	err = sn.Walk(ctx, func(ctx context.Context, info snapshots.Info) error {
		if info.Kind != snapshots.KindCommitted {
			return nil // a layer being unpacked: measuring it means walking it
		}
		u, err := sn.Usage(ctx, info.Name)
		total.add(u.Size, u.Inodes)
		return err
	})
	if err != nil {
		return Usage{}, fmt.Errorf("measure unpacked images: %w", err)
	}
	return total, nil
}

// RootfsUsage measures the writable layer of a container by walking it. errdefs.ErrNotFound: it has none.
func (s *Store) RootfsUsage(ctx context.Context, containerID string) (Usage, error) {
	dir, err := s.rootfs.upperOf(containerID)
	if err != nil {
		return Usage{}, err
	}
	u, err := fstree.Measure(ctx, dir)
	if err != nil {
		return Usage{}, fmt.Errorf("measure the root of container %s: %w", containerID, err)
	}
	return Usage(u), nil
}

// fsInfo is the CRI's view of the space that images and containers' writable layers take. The latter is walked.
func (s *Store) fsInfo(ctx context.Context) (*runtimeapi.ImageFsInfoResponse, error) {
	imageUsage, err := s.imageUsage(ctx)
	if err != nil {
		return nil, err
	}
	writable, err := fstree.Measure(ctx, s.rootfs.dir)
	if err != nil {
		return nil, fmt.Errorf("measure containers' roots: %w", err)
	}
	entry := func(u Usage) []*runtimeapi.FilesystemUsage {
		return []*runtimeapi.FilesystemUsage{{
			Timestamp:  s.cfg.Clock.Now().UnixNano(),
			FsId:       &runtimeapi.FilesystemIdentifier{Mountpoint: s.cfg.Root},
			UsedBytes:  &runtimeapi.UInt64Value{Value: uint64(u.Bytes)},
			InodesUsed: &runtimeapi.UInt64Value{Value: uint64(u.Inodes)},
		}}
	}
	return &runtimeapi.ImageFsInfoResponse{ImageFilesystems: entry(imageUsage), ContainerFilesystems: entry(Usage(writable))}, nil
}
