package images

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

const (
	// maxTries is how often in a row a request may fail before its source is given up.
	maxTries = 4
	// minProgress is how many bytes a request must bring before it fails to start that count anew.
	minProgress = 64 << 10
)

// fetcher fetches an image's content from several sources: each blob from the first that gives it, continuing where a broken
// connection stopped. Content is addressed by its digest, so it doesn't matter who serves it.
type fetcher struct {
	sources []remotes.Fetcher
	clock   clock.Clock
	delay   time.Duration
}

// Fetch implements remotes.Fetcher. Nothing is sent before the first Read. The URLs that a manifest may name for a layer are passed
// over: whoever made the image would choose what this machine asks, within whatever networks it reaches. They were for layers of
// Windows, which mustn't be distributed.
func (f fetcher) Fetch(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	desc.URLs = nil
	return &blobReader{fetcher: f, ctx: ctx, desc: desc}, nil
}

// blobReader reads one blob. It can be positioned by Seek, from the start only: that is what resuming a download needs.
type blobReader struct {
	fetcher
	ctx    context.Context
	desc   ocispec.Descriptor
	offset int64

	source int           // in use
	open   io.ReadCloser // nil if no request is under way
	tries  int           // failures since there was progress
	failed int64         // offset of the last failure
	first  error         // why the first source was given up
}

// Read implements io.Reader.
func (r *blobReader) Read(p []byte) (int, error) {
	for {
		n, err := r.readOnce(p)
		r.offset += int64(n)
		if n > 0 {
			if err != nil {
				r.close() // read on, the next time, over a new connection if there is more
			}
			return n, nil
		}
		if err == nil {
			continue
		}
		r.close()
		if err == io.EOF {
			if r.offset >= r.desc.Size {
				return 0, io.EOF
			}
			err = fmt.Errorf("connection ended after %d of %d bytes: %w", r.offset, r.desc.Size, io.ErrUnexpectedEOF)
		}
		if err := r.recover(err); err != nil {
			return 0, err
		}
	}
}

func (r *blobReader) readOnce(p []byte) (int, error) {
	if r.offset >= r.desc.Size {
		return 0, io.EOF
	}
	if r.open == nil {
		rc, err := r.sources[r.source].Fetch(r.ctx, r.desc)
		if err != nil {
			return 0, err
		}
		r.open = rc
		if r.offset > 0 {
			seeker, ok := rc.(io.Seeker)
			if !ok {
				return 0, fmt.Errorf("can't continue at byte %d: %w", r.offset, errdefs.ErrNotImplemented)
			}
			if _, err := seeker.Seek(r.offset, io.SeekStart); err != nil {
				return 0, err
			}
		}
	}
	return r.open.Read(p)
}

// recover decides after a failure: nil means try again, be it after a pause or at the next source.
func (r *blobReader) recover(err error) error {
	if r.ctx.Err() != nil {
		return r.ctx.Err()
	}
	logger := klog.FromContext(r.ctx)
	// The registry has just answered for the manifest: if it doesn't now, it restarts, or the network does.
	if transient(err) || unreachable(err) {
		if r.offset-r.failed >= minProgress {
			r.tries = 0
		}
		r.failed = r.offset
		if r.tries++; r.tries < maxTries {
			logger.V(2).Info("Fetching a blob goes on after an error", "digest", r.desc.Digest, "offset", r.offset, "err", err)
			return pause(r.ctx, r.clock, r.delay<<(r.tries-1))
		}
	}
	if r.first == nil {
		r.first = err
	}
	r.source++
	r.tries = 0
	if r.source == len(r.sources) {
		return r.first
	}
	logger.V(2).Info("Fetching a blob goes on at the next source", "digest", r.desc.Digest, "offset", r.offset, "err", err)
	return nil
}

// Seek implements io.Seeker.
func (r *blobReader) Seek(offset int64, whence int) (int64, error) {
	if whence != io.SeekStart || offset < 0 {
		return r.offset, fmt.Errorf("seek to %d from %d: %w", offset, whence, errdefs.ErrInvalidArgument)
	}
	r.close()
	r.offset, r.failed = offset, offset
	return offset, nil
}

// Close implements io.Closer.
func (r *blobReader) Close() error {
	r.close()
	return nil
}

// close drops the request under way. What its Close says doesn't matter: what was read is verified by digest.
func (r *blobReader) close() {
	if r.open != nil {
		_ = r.open.Close()
		r.open = nil
	}
}

// pause waits for d, or for ctx's end, whose error it returns.
func pause(ctx context.Context, c clock.Clock, d time.Duration) error {
	timer := c.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
