package fakecri

import (
	"context"
	"crypto/sha256"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Images is the runtime's image service. Methods that it doesn't implement
// panic.
type Images struct {
	internalapi.ImageManagerService
	runtime *Runtime
}

// Images returns the image service.
func (r *Runtime) Images() *Images { return &Images{runtime: r} }

// AddImage makes an image present.
func (r *Runtime) AddImage(name string) *runtimeapi.Image {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.addImage(name)
}

func (r *Runtime) addImage(name string) *runtimeapi.Image {
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(name)))
	image := &runtimeapi.Image{Id: digest, RepoTags: []string{name}, RepoDigests: []string{"fake/image@" + digest}, Size: 1234}
	r.images[name] = image
	return image
}

// PullFails makes pulls of the image fail; nil mends it.
func (r *Runtime) PullFails(name string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pullErrors[name] = err
}

// PullWaits makes pulls of the image wait until the returned function is called.
func (r *Runtime) PullWaits(name string) (release func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ch := make(chan struct{})
	r.pulling[name] = ch
	return func() { close(ch) }
}

// image finds an image by name or ID. r.mu must be held.
func (r *Runtime) image(ref string) *runtimeapi.Image {
	if i := r.images[ref]; i != nil {
		return i
	}
	for _, i := range r.images {
		if i.Id == ref {
			return i
		}
	}
	return nil
}

// ImageStatus implements the CRI.
func (s *Images) ImageStatus(_ context.Context, spec *runtimeapi.ImageSpec, _ bool) (*runtimeapi.ImageStatusResponse, error) {
	s.runtime.mu.Lock()
	defer s.runtime.mu.Unlock()
	return &runtimeapi.ImageStatusResponse{Image: s.runtime.image(spec.Image)}, nil
}

// PullImage implements the CRI: every image exists unless it was made to fail.
func (s *Images) PullImage(ctx context.Context, spec *runtimeapi.ImageSpec, _ *runtimeapi.AuthConfig, _ *runtimeapi.PodSandboxConfig) (string, error) {
	r := s.runtime
	r.mu.Lock()
	wait := r.pulling[spec.Image]
	r.mu.Unlock()
	if wait != nil {
		select {
		case <-wait:
		case <-ctx.Done():
			return "", status.FromContextError(ctx.Err()).Err()
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.pullErrors[spec.Image]; err != nil {
		return "", status.Error(codes.NotFound, err.Error())
	}
	return r.addImage(spec.Image).Id, nil
}
