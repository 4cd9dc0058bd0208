package cri

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	continuity "github.com/containerd/continuity/fs"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	crierrors "k8s.io/cri-api/pkg/errors"
)

// imageVolumes is the directory in a bundle where images are mounted that the
// container has as volumes, each by its index among the container's mounts.
const imageVolumes = "image-volumes"

// mountImageVolumes mounts the images that the container has as volumes
// (KEP-4639), and returns what of them is to be mounted into it, by the index of
// the mount. The container's status tells which images they are (KEP-5365). The
// bundle's removal unmounts them.
func (s *Service) mountImageVolumes(ctx context.Context, c *container) (map[int]string, error) {
	var sources map[int]string
	told := c.settings()
	for i, m := range told.GetMounts() {
		if m.GetImage().GetImage() == "" {
			continue
		}
		source, ref, err := s.mountImageVolume(ctx, c, i, m)
		if err != nil {
			return nil, fmt.Errorf("%w: image %s at %s: %w", crierrors.ErrImageVolumeMountFailed, imageName(m.GetImage()), m.GetContainerPath(), err)
		}
		if sources == nil {
			sources, told = map[int]string{}, proto.CloneOf(told)
		}
		sources[i], told.Mounts[i].Image.ImageRef = source, ref
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.config = told
	return sources, nil
}

func (s *Service) mountImageVolume(ctx context.Context, c *container, index int, m *runtimeapi.Mount) (source, ref string, err error) {
	img, err := s.cfg.Images.Get(ctx, m.GetImage().GetImage())
	if err != nil {
		return "", "", err
	}
	name := strconv.Itoa(index)
	mounts, err := s.cfg.Images.PrepareImageVolume(ctx, c.id, name, img)
	if err != nil {
		return "", "", err
	}
	target := filepath.Join(c.bundle, imageVolumes, name)
	if err := os.MkdirAll(target, 0o711); err != nil {
		return "", "", err
	}
	if err := s.mountFor(c, target, mounts); err != nil {
		return "", "", err
	}
	source, err = subPathOfImage(target, m.GetImageSubPath())
	return source, img.ID, err
}

// subPathOfImage finds what is to be mounted of an image. A link in it leads where
// it would lead in a container of the image. Nobody can change it meanwhile.
func subPathOfImage(root, sub string) (string, error) {
	path, err := continuity.RootPath(root, sub)
	if err != nil {
		return "", fmt.Errorf("find %s in the image: %w", sub, err)
	}
	if _, err := os.Lstat(path); err != nil {
		return "", fmt.Errorf("the image has no %s", sub)
	}
	return path, nil
}

// imageName is what the user calls the image.
func imageName(i *runtimeapi.ImageSpec) string {
	if name := i.GetUserSpecifiedImage(); name != "" {
		return name
	}
	return i.GetImage()
}

// unmountImageVolumes unmounts what mountImageVolumes mounted. It is idempotent.
func (s *Service) unmountImageVolumes(bundle string) error {
	entries, err := os.ReadDir(filepath.Join(bundle, imageVolumes))
	if err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("look for mounted images: %w", err)
	}
	for _, e := range entries {
		if err := s.cfg.Mounter.Unmount(filepath.Join(bundle, imageVolumes, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
