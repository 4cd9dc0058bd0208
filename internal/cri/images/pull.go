package images

import (
	"context"
	"crypto/sha256"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"errand.dev/errand/internal/podtrace"
)

// Pull brings the image that name means now, from its registry or a mirror of it, and returns it. What is here already isn't fetched
// again; if nothing is new it costs one request. What the machine's signature policy doesn't let in isn't asked for. auth may be nil; it comes before the user's auth.json.
//
// Pulls of the same image with the same credentials at the same time are one. A broken connection is taken up where it stopped. When
// Pull fails, it leaves nothing, save what the next attempt can go on with. ctx's end ends it.
func (s *Store) Pull(ctx context.Context, name string, auth *runtimeapi.AuthConfig) (Image, error) {
	return s.PullWithProgress(ctx, name, auth, nil)
}

// PullWithProgress is Pull for someone who watches: progress, which may be nil, is told how many bytes of the blobs that are not here
// have come, once the manifest has said which those are. It is never called twice at once, and holds up nobody but its caller. Who
// joins a pull under way is told of the whole of it.
func (s *Store) PullWithProgress(ctx context.Context, name string, auth *runtimeapi.AuthConfig, progress func(Progress)) (Image, error) {
	named, err := parseRef(name)
	if err != nil {
		return Image{}, err
	}
	if err := s.mayPull(named); err != nil {
		return Image{}, err
	}
	img, err := s.flights.do(ctx, s.ctx, flightKey(named, auth), progress, func(ctx context.Context, m *meter) (Image, error) {
		return s.pull(s.context(ctx), named, auth, m)
	})
	if err != nil {
		return Image{}, fmt.Errorf("failed to pull and unpack image %q: %w", named, err)
	}
	return img, nil
}

// flightKey keeps pulls with different credentials apart: one must not profit from the other's.
func flightKey(named reference.Named, auth *runtimeapi.AuthConfig) string {
	if auth == nil {
		return named.String()
	}
	// Marshalling a message of strings doesn't fail.
	data, _ := proto.MarshalOptions{Deterministic: true}.Marshal(auth)
	return fmt.Sprintf("%s %x", named, sha256.Sum256(data))
}

func (s *Store) pull(ctx context.Context, named reference.Named, auth *runtimeapi.AuthConfig, m *meter) (Image, error) {
	logger := klog.FromContext(ctx)
	start := s.cfg.Clock.Now()
	sources, err := s.sources(named, auth)
	if err != nil {
		return Image{}, err
	}
	_, step := podtrace.Start(ctx, "ResolveImage", "")
	desc, from, err := s.resolve(ctx, named, sources)
	step.End(err)
	if err != nil {
		return Image{}, fmt.Errorf("failed to resolve image: %w", err)
	}
	img, ok, err := s.adopt(ctx, named, desc.Digest)
	if ok || err != nil {
		return img, err
	}
	err = s.withLease(ctx, named.String(), func(ctx context.Context) error {
		_, step := podtrace.Start(ctx, "FetchImage", desc.Digest.String()) // and unpack it, meanwhile
		target, err := s.fetch(ctx, desc, from, m)
		step.End(err)
		if err != nil {
			return err
		}
		img, err = s.name(ctx, target, namesFor(named, target.Digest))
		return err
	})
	if err != nil {
		return Image{}, err
	}
	logger.V(2).Info("Pulled image", "image", named.String(), "id", img.ID, "size", img.Size, "took", s.cfg.Clock.Since(start))
	return s.index.get(img.ID)
}

// adopt gives an image that is here already the names under which it was asked for. ok is false if it isn't here.
func (s *Store) adopt(ctx context.Context, named reference.Named, target digest.Digest) (_ Image, ok bool, err error) {
	s.nameMu.Lock()
	defer s.nameMu.Unlock()
	img, ok := s.index.byTarget(target)
	if !ok {
		return Image{}, false, nil
	}
	if err := s.setNames(ctx, img, namesFor(named, target)); err != nil {
		return Image{}, false, err
	}
	img, err = s.index.get(img.ID)
	if errdefs.IsNotFound(err) {
		return Image{}, false, nil
	}
	return img, err == nil, err
}
