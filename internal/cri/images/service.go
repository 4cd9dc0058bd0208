package images

import (
	"context"

	"github.com/containerd/errdefs"
	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Service returns the store as the CRI's image service. Its errors are gRPC statuses with the codes and messages of containerd's,
// as a kubelet prints them.
func (s *Store) Service() internalapi.ImageManagerService { return service{s} }

type service struct{ store *Store }

// ListImages implements internalapi.ImageManagerService. A filter names one image.
func (s service) ListImages(ctx context.Context, filter *runtimeapi.ImageFilter) ([]*runtimeapi.Image, error) {
	if ref := filter.GetImage().GetImage(); ref != "" {
		img, err := s.store.Get(ctx, ref)
		if errdefs.IsNotFound(err) {
			return nil, nil
		}
		if err != nil {
			return nil, statusError(err)
		}
		return []*runtimeapi.Image{img.cri()}, nil
	}
	var out []*runtimeapi.Image
	for _, img := range s.store.List(ctx) {
		out = append(out, img.cri())
	}
	return out, nil
}

// ImageStatus implements internalapi.ImageManagerService. Of a missing image the response is empty.
func (s service) ImageStatus(ctx context.Context, image *runtimeapi.ImageSpec, verbose bool) (*runtimeapi.ImageStatusResponse, error) {
	img, err := s.store.Get(ctx, image.GetImage())
	if errdefs.IsNotFound(err) {
		return &runtimeapi.ImageStatusResponse{}, nil
	}
	if err != nil {
		return nil, statusError(err)
	}
	resp := &runtimeapi.ImageStatusResponse{Image: img.cri()}
	if verbose {
		if resp.Info, err = img.verboseInfo(); err != nil {
			return nil, statusError(err)
		}
	}
	return resp, nil
}

// PullImage implements internalapi.ImageManagerService. It returns the image's ID. The sandbox's config doesn't matter: there is one
// snapshotter for all runtime handlers.
func (s service) PullImage(ctx context.Context, image *runtimeapi.ImageSpec, auth *runtimeapi.AuthConfig, _ *runtimeapi.PodSandboxConfig) (string, error) {
	img, err := s.store.Pull(ctx, image.GetImage(), auth)
	if err != nil {
		return "", statusError(err)
	}
	return img.ID, nil
}

// RemoveImage implements internalapi.ImageManagerService. See Store.Remove.
func (s service) RemoveImage(ctx context.Context, image *runtimeapi.ImageSpec) error {
	return statusError(s.store.Remove(ctx, image.GetImage()))
}

// ImageFsInfo implements internalapi.ImageManagerService. UsedBytes of images are those of blobs and unpacked layers.
func (s service) ImageFsInfo(ctx context.Context) (*runtimeapi.ImageFsInfoResponse, error) {
	resp, err := s.store.fsInfo(s.store.context(ctx))
	return resp, statusError(err)
}

// Close implements internalapi.ImageManagerService. There is no connection to close: the Store's owner closes it.
func (s service) Close(context.Context) error { return nil }
