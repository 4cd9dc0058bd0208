package server

import (
	"context"
	"errors"
	"fmt"
	"io"

	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"errand.dev/errand/internal/control"
	"errand.dev/errand/internal/cri/cgroups"
	"errand.dev/errand/internal/datadir"
	"errand.dev/errand/internal/instance"
)

// openRemoteImages gives a command the images of another program's runtime, which
// has the pods of a data directory that this process holds; dir is closed with them,
// or at an error.
func openRemoteImages(ctx context.Context, in endpoints, dir *datadir.Dir) (control.Images, func() error, error) {
	names, err := instance.For(dir.Root())
	if err != nil {
		return nil, nil, errors.Join(err, dir.Close())
	}
	tree, err := cgroups.Open(cgroupRoot)
	if err != nil {
		return nil, nil, errors.Join(err, dir.Close())
	}
	client, end, err := connectRemote(ctx, in, names.ID, tree)
	if err != nil {
		return nil, nil, errors.Join(err, dir.Close())
	}
	return &remoteImages{client.Images()}, func() error { return errors.Join(end(), dir.Close()) }, nil
}

// remoteImages are the images of another program's runtime, as errand's commands
// see them.
type remoteImages struct {
	service internalapi.ImageManagerService
}

var _ control.Images = (*remoteImages)(nil)

func (c *remoteImages) List(ctx context.Context) ([]control.Image, error) {
	list, err := c.service.ListImages(ctx, nil)
	if err != nil {
		return nil, err
	}
	out := make([]control.Image, 0, len(list))
	for _, img := range list {
		out = append(out, describeRemote(img))
	}
	return out, nil
}

func (c *remoteImages) Pull(ctx context.Context, ref string, progress func(control.Progress)) (control.Image, error) {
	if progress != nil {
		progress(control.Progress{Step: "pulling " + ref}) // the CRI tells no more
	}
	id, err := c.service.PullImage(ctx, &runtimeapi.ImageSpec{Image: ref}, nil, nil)
	if err != nil {
		return control.Image{}, err
	}
	return c.get(ctx, id)
}

func (c *remoteImages) Load(context.Context, io.Reader, func(control.Progress)) ([]control.Image, error) {
	return nil, errors.New("images can't be loaded from an archive into another program's container runtime, for which the CRI has no call: use its own tool (containerd: ctr --namespace k8s.io images import; CRI-O: skopeo copy or podman load)")
}

func (c *remoteImages) Remove(ctx context.Context, ref string) error {
	if _, err := c.get(ctx, ref); err != nil {
		return fmt.Errorf("remove %s: %w", ref, err)
	}
	return c.service.RemoveImage(ctx, &runtimeapi.ImageSpec{Image: ref})
}

// get is an error where there is no such image.
func (c *remoteImages) get(ctx context.Context, ref string) (control.Image, error) {
	resp, err := c.service.ImageStatus(ctx, &runtimeapi.ImageSpec{Image: ref}, false)
	if err != nil {
		return control.Image{}, err
	}
	if resp.GetImage() == nil {
		return control.Image{}, errors.New("no such image")
	}
	return describeRemote(resp.GetImage()), nil
}

func describeRemote(img *runtimeapi.Image) control.Image {
	return control.Image{ID: img.GetId(), RepoTags: img.GetRepoTags(), RepoDigests: img.GetRepoDigests(), Size: int64(img.GetSize())}
}
