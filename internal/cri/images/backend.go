package images

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/kernelversion"
	"github.com/containerd/containerd/v2/plugins/snapshots/native"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
)

// backend is what unpacked layers are kept in.
type backend struct {
	name        string
	snapshotter snapshots.Snapshotter
	// overlayOptions are the options, besides directories, with which the overlay of a container's root is mounted.
	overlayOptions []string
}

func (b backend) overlay() bool { return b.name == SnapshotterOverlay }

// openBackend opens the snapshotter that cfg asks for, or the best one that works in cfg.Root.
func openBackend(ctx context.Context, cfg Config) (backend, error) {
	if err := removeProbes(cfg.Root); err != nil {
		return backend{}, err
	}
	name, options := cfg.Snapshotter, defaultOverlayOptions()
	if name == "" {
		var err error
		switch options, err = probeOverlay(cfg.Root); {
		case err == nil:
			name = SnapshotterOverlay
		case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
			return backend{}, fmt.Errorf("cannot mount an overlay in %s: %w: mounting needs root", cfg.Root, err)
		default:
			name = SnapshotterNative
			klog.FromContext(ctx).Info("The file system below the image store can't carry overlays (is it an overlay itself?): every container gets a full copy of its image, which is slow and takes much space. Put the data directory on ext4, xfs, btrfs or tmpfs",
				"directory", cfg.Root, "reason", err.Error())
		}
	}
	dir := filepath.Join(cfg.Root, "snapshots", name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return backend{}, fmt.Errorf("make the snapshot directory: %w", err)
	}
	b := backend{name: name, overlayOptions: options}
	var err error
	if b.overlay() {
		b.snapshotter, err = overlay.NewSnapshotter(dir, overlay.WithUpperdirLabel)
	} else {
		b.snapshotter, err = native.NewSnapshotter(dir)
	}
	if err != nil {
		return backend{}, fmt.Errorf("open the %s snapshotter: %w", name, err)
	}
	return b, nil
}

// defaultOverlayOptions are the options that the kernel's version promises.
func defaultOverlayOptions() []string {
	var options []string
	if _, err := os.Stat("/sys/module/overlay/parameters/index"); err == nil {
		// An inode index is of no use for an upper directory that is never used twice, and it would refuse lower directories
		// shared with another overlay.
		options = append(options, "index=off")
	}
	if ok, err := kernelversion.GreaterEqualThan(kernelversion.KernelVersion{Kernel: 5, Major: 10}); err == nil && ok {
		// Unmounting an overlay syncs the whole file system of its upper directory: a container's end would wait for everybody
		// else's writes. A container's root needn't outlive a power cut, so skip that.
		options = append(options, "volatile")
	}
	return options
}

// probePrefix begins the names of the directories that probeOverlay works in.
const probePrefix = "probe-"

// removeProbes removes what an errand that was killed while it probed has left, with its mount.
func removeProbes(root string) error {
	left, err := filepath.Glob(filepath.Join(root, probePrefix+"*"))
	if err != nil {
		return err
	}
	for _, dir := range left {
		if err := mount.UnmountAll(filepath.Join(dir, "merged"), unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount what is left of a test of overlays: %w", err)
		}
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove what is left of a test of overlays: %w", err)
		}
	}
	return nil
}

// probeOverlay mounts an overlay in root and returns the options with which that worked.
func probeOverlay(root string) (options []string, err error) {
	dir, err := os.MkdirTemp(root, probePrefix)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	for _, d := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			return nil, err
		}
	}
	var first error
	for _, options := range [][]string{defaultOverlayOptions(), nil} {
		m := overlayMount([]string{filepath.Join(dir, "lower")}, filepath.Join(dir, "upper"), filepath.Join(dir, "work"), options)
		err := m.Mount(filepath.Join(dir, "merged"))
		if err == nil {
			return options, mount.Unmount(filepath.Join(dir, "merged"), unix.MNT_DETACH)
		}
		if first == nil {
			first = err
		}
		// Volatile's marker would make the second attempt fail.
		if err := errors.Join(os.RemoveAll(filepath.Join(dir, "work")), os.Mkdir(filepath.Join(dir, "work"), 0o700)); err != nil {
			return nil, err
		}
	}
	return nil, first
}

// overlayMount stacks upper on lowers, of which the first is the topmost.
func overlayMount(lowers []string, upper, work string, options []string) mount.Mount {
	return mount.Mount{Type: "overlay", Source: "overlay", Options: append([]string{
		"workdir=" + work,
		"upperdir=" + upper,
		"lowerdir=" + strings.Join(lowers, ":"),
	}, options...)}
}

// upperdirLabel is where the overlay snapshotter says where a layer's files are.
const upperdirLabel = "containerd.io/snapshot/overlay.upperdir"

// layerDirs returns the directories that hold the layers of a committed snapshot, the topmost first: of an overlay one a layer, of
// the native snapshotter the one that has everything.
func (b backend) layerDirs(ctx context.Context, sn snapshots.Snapshotter, chainID string) ([]string, error) {
	if !b.overlay() {
		return b.nativeDir(ctx, sn, chainID)
	}
	var dirs []string
	for key := chainID; key != ""; {
		info, err := sn.Stat(ctx, key)
		if err != nil {
			return nil, err
		}
		dirs = append(dirs, info.Labels[upperdirLabel])
		key = info.Parent
	}
	return dirs, nil
}

// nativeDir asks the native snapshotter by way of a view, which it makes without copying.
func (b backend) nativeDir(ctx context.Context, sn snapshots.Snapshotter, chainID string) ([]string, error) {
	key := "look-" + rand.Text()
	mounts, err := sn.View(ctx, key, chainID)
	if err != nil {
		return nil, err
	}
	if err := sn.Remove(ctx, key); err != nil {
		return nil, err
	}
	if len(mounts) != 1 || mounts[0].Source == "" {
		return nil, fmt.Errorf("unexpected mounts of snapshot %s: %v", chainID, mounts)
	}
	return []string{mounts[0].Source}, nil
}
