package images

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"k8s.io/klog/v2"
)

// resolve asks the sources in their order what named means, and returns the first answer with a fetcher that prefers the source
// that gave it. If none has one, the error is the most telling of theirs.
func (s *Store) resolve(ctx context.Context, named reference.Named, sources []source) (ocispec.Descriptor, remotes.Fetcher, error) {
	var failures []sourceError
	for i, src := range sources {
		desc, err := s.resolveAt(ctx, src)
		if err == nil {
			f, err := s.fetcher(ctx, append([]source{src}, append(sources[i+1:len(sources):len(sources)], sources[:i]...)...))
			return desc, f, err
		}
		if ctx.Err() != nil {
			return ocispec.Descriptor{}, nil, ctx.Err()
		}
		if errdefs.IsNotFound(err) && strings.HasPrefix(err.Error(), src.ref+":") {
			// Name the image as the user does, not as the mirror does.
			err = fmt.Errorf("%s: %w", named, errdefs.ErrNotFound)
		}
		klog.FromContext(ctx).V(2).Info("A source doesn't give the image", "image", named.String(), "source", src.host, "err", err)
		failures = append(failures, sourceError{src, err})
	}
	return ocispec.Descriptor{}, nil, mostTelling(failures)
}

// resolveAt asks one source, again if the connection breaks.
func (s *Store) resolveAt(ctx context.Context, src source) (ocispec.Descriptor, error) {
	for try := 0; ; try++ {
		_, desc, err := src.resolver.Resolve(ctx, src.ref)
		if err == nil && desc.MediaType == images.MediaTypeDockerSchema1Manifest {
			return desc, fmt.Errorf("schema 1 image manifests are no longer supported: %w", errdefs.ErrInvalidArgument)
		}
		if err == nil || try+1 == maxTries || !transient(err) {
			return desc, err
		}
		if err := pause(ctx, s.cfg.Clock, s.cfg.retryDelay<<try); err != nil {
			return desc, err
		}
	}
}

func (s *Store) fetcher(ctx context.Context, sources []source) (remotes.Fetcher, error) {
	f := fetcher{clock: s.cfg.Clock, delay: s.cfg.retryDelay}
	for _, src := range sources {
		one, err := src.resolver.Fetcher(ctx, src.ref)
		if err != nil {
			return nil, fmt.Errorf("failed to get fetcher for %q: %w", src.ref, err)
		}
		f.sources = append(f.sources, one)
	}
	return f, nil
}

type sourceError struct {
	source source
	err    error
}

// mostTelling picks the error to show of several sources': an answer (denied, broken) before "not found", that before no answer at
// all, as containerd does. Of a registry that can't be reached it adds what the others said.
func mostTelling(failures []sourceError) error {
	best := failures[0]
	for _, f := range failures[1:] {
		if rank(f.err) > rank(best.err) {
			best = f
		}
	}
	if rank(best.err) > rankUnreachable {
		return best.err
	}
	var others []string
	for _, f := range failures {
		if f != best {
			others = append(others, fmt.Sprintf("%s: %v", f.source.host, f.err))
		}
	}
	if len(others) == 0 {
		return best.err
	}
	return fmt.Errorf("%w (also tried %s)", best.err, strings.Join(others, "; "))
}

const (
	rankUnreachable = iota
	rankNotFound
	rankRefused
)

func rank(err error) int {
	if errdefs.IsNotFound(err) {
		return rankNotFound
	}
	if _, ok := errors.AsType[remoteerrors.ErrUnexpectedStatus](err); ok || errors.Is(err, docker.ErrInvalidAuthorization) {
		return rankRefused
	}
	return rankUnreachable
}
