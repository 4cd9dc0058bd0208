package cri

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"

	"errand.dev/errand/internal/cri/idmap"
)

// hostMounter is the host's mounts.
type hostMounter struct{}

func (hostMounter) Mount(target string, mounts []mount.Mount) error {
	return mount.All(mounts, target)
}

func (m hostMounter) MountMapped(target string, mounts []mount.Mount, userns, scratch string) error {
	users, err := os.Open(userns)
	if err != nil {
		return fmt.Errorf("open the pod's user namespace: %w", err)
	}
	defer users.Close() //nolint:errcheck // opened for reading
	for _, one := range mounts {
		if err := m.mountMapped(target, one, users, scratch); err != nil {
			return err
		}
	}
	return nil
}

func (m hostMounter) mountMapped(target string, one mount.Mount, users *os.File, scratch string) error {
	switch one.Type {
	case "overlay":
		return idmap.Overlay(one.Options, scratch, users, func(options []string) error {
			one.Options = options
			return one.Mount(target)
		})
	case "bind":
		attributes := uint64(0)
		if one.ReadOnly() {
			attributes |= unix.MOUNT_ATTR_RDONLY
		}
		return idmap.Bind(one.Source, target, users, attributes)
	}
	return one.Mount(target) // a file system of its own
}

func (hostMounter) Unmount(target string) error {
	for {
		switch err := unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); {
		case err == nil:
			continue // there may be one below
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT):
			return nil
		default:
			return fmt.Errorf("unmount %s: %w", filepath.Clean(target), err)
		}
	}
}
