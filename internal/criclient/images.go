package criclient

import (
	"context"

	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Images is the runtime's image service. Its images are everyone's.
func (c *Client) Images() internalapi.ImageManagerService { return imageService{c} }

type imageService struct{ *Client }

var _ internalapi.ImageManagerService = imageService{}

// ListImages implements internalapi.ImageManagerService.
func (s imageService) ListImages(ctx context.Context, filter *runtimeapi.ImageFilter) ([]*runtimeapi.Image, error) {
	l, err := s.current()
	if err != nil {
		return nil, err
	}
	return l.images.ListImages(quiet(ctx), filter)
}

// ImageStatus implements internalapi.ImageManagerService.
func (s imageService) ImageStatus(ctx context.Context, image *runtimeapi.ImageSpec, verbose bool) (*runtimeapi.ImageStatusResponse, error) {
	l, err := s.current()
	if err != nil {
		return nil, err
	}
	return l.images.ImageStatus(quiet(ctx), image, verbose)
}

// PullImage implements internalapi.ImageManagerService.
func (s imageService) PullImage(ctx context.Context, image *runtimeapi.ImageSpec, auth *runtimeapi.AuthConfig, sandbox *runtimeapi.PodSandboxConfig) (string, error) {
	l, err := s.current()
	if err != nil {
		return "", err
	}
	return l.images.PullImage(quiet(ctx), image, auth, sandbox)
}

// RemoveImage implements internalapi.ImageManagerService.
func (s imageService) RemoveImage(ctx context.Context, image *runtimeapi.ImageSpec) error {
	l, err := s.current()
	if err != nil {
		return err
	}
	return l.images.RemoveImage(quiet(ctx), image)
}

// ImageFsInfo implements internalapi.ImageManagerService.
func (s imageService) ImageFsInfo(ctx context.Context) (*runtimeapi.ImageFsInfoResponse, error) {
	l, err := s.current()
	if err != nil {
		return nil, err
	}
	return l.images.ImageFsInfo(quiet(ctx))
}

// Close implements internalapi.ImageManagerService. The connection is Run's.
func (s imageService) Close(context.Context) error { return nil }
