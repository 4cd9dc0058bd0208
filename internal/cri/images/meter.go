package images

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"k8s.io/utils/clock"
)

// meterPause is the least time between two reports of a pull's progress; a blob's end is told in any case.
const meterPause = 100 * time.Millisecond

// meter counts the bytes of one pull and tells those who watch. It counts by position, not by reads: a download that is taken up in
// the middle has come that far, and one that starts anew goes back.
type meter struct {
	clock clock.PassiveClock

	mu       sync.Mutex
	blobs    map[digest.Digest]*meteredBlob
	now      Progress
	shown    time.Time
	watchers map[chan Progress]struct{}
}

type meteredBlob struct{ at, size int64 }

func newMeter(c clock.PassiveClock) *meter {
	return &meter{clock: c, blobs: map[digest.Digest]*meteredBlob{}, watchers: map[chan Progress]struct{}{}}
}

// watch gives the progress so far, if there is any, and from now on. The channel holds only the newest: who is slow to read misses
// some, and holds nobody up. stop ends it.
func (m *meter) watch() (_ <-chan Progress, stop func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := make(chan Progress, 1)
	m.watchers[w] = struct{}{}
	if m.now.Total > 0 {
		w <- m.now
	}
	return w, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.watchers, w)
	}
}

// expect adds a blob that will be fetched to the total.
func (m *meter) expect(desc ocispec.Descriptor) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.blobs[desc.Digest]; ok || desc.Size <= 0 {
		return
	}
	m.blobs[desc.Digest] = &meteredBlob{size: desc.Size}
	m.now.Total += desc.Size
}

// reached says how far a blob has come. What isn't expected, such as the manifest, doesn't count.
func (m *meter) reached(d digest.Digest, offset int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.blobs[d]
	if !ok {
		return
	}
	if offset = min(offset, b.size); offset == b.at {
		return
	}
	m.now.Bytes += offset - b.at
	b.at = offset
	if t := m.clock.Now(); offset == b.size || t.Sub(m.shown) >= meterPause {
		m.shown = t
		m.tell()
	}
}

func (m *meter) tell() {
	for w := range m.watchers {
		select {
		case <-w:
		default:
		}
		w <- m.now // has room: only this sends, under the lock
	}
}

// expectChildren is a handler that expects what a manifest names and the store lacks.
func (s *Store) expectChildren(m *meter) images.HandlerFunc {
	return func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		if !images.IsManifestType(desc.MediaType) {
			return nil, nil
		}
		children, err := images.Children(ctx, s.content, desc)
		if err != nil {
			return nil, err
		}
		for _, child := range children {
			if _, err := s.content.Info(ctx, child.Digest); errdefs.IsNotFound(err) {
				m.expect(child)
			}
		}
		return nil, nil
	}
}

// meteredFetcher tells the meter how far its readers are.
type meteredFetcher struct {
	remotes.Fetcher
	meter *meter
}

// Fetch implements remotes.Fetcher.
func (f meteredFetcher) Fetch(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	rc, err := f.Fetcher.Fetch(ctx, desc)
	if err != nil {
		return nil, err
	}
	return &meteredReader{ReadCloser: rc, meter: f.meter, digest: desc.Digest}, nil
}

type meteredReader struct {
	io.ReadCloser
	meter  *meter
	digest digest.Digest
	offset int64
}

// Read implements io.Reader.
func (r *meteredReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.offset += int64(n)
	r.meter.reached(r.digest, r.offset)
	return n, err
}

// Seek implements io.Seeker: without it, what was fetched earlier would be fetched again.
func (r *meteredReader) Seek(offset int64, whence int) (int64, error) {
	seeker, ok := r.ReadCloser.(io.Seeker)
	if !ok {
		return r.offset, fmt.Errorf("can't continue at byte %d: %w", offset, errdefs.ErrNotImplemented)
	}
	at, err := seeker.Seek(offset, whence)
	if err == nil {
		r.offset = at
		r.meter.reached(r.digest, at)
	}
	return at, err
}
