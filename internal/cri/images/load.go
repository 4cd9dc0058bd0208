package images

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Progress is how far a pull or Load has come.
type Progress struct {
	// Bytes that have come so far: of the blobs being fetched, or of the archive as it is stored.
	Bytes int64
	// Total is what Bytes will be at the end, 0 if that isn't known: Load doesn't know it.
	Total int64
	// Image is the one that Load unpacks: a name, or a digest if it has none. "" while the archive is read.
	Image string
}

// Load brings the images in an archive: an OCI image layout in a tar, or what `docker save` writes, plain or compressed with gzip or
// zstd. It returns them; an image that the archive gives no name has only its ID. Images for other platforms only are an error.
// progress may be nil; it is never called twice at once. Nothing in the archive decides over a path: blobs are kept by the digest that
// they have, and layers are unpacked like pulled ones.
func (s *Store) Load(ctx context.Context, r io.Reader, progress func(Progress)) ([]Image, error) {
	if progress == nil {
		progress = func(Progress) {}
	}
	if err := s.mayLoad(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(s.context(ctx))
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	var loaded []Image
	err := s.withLease(ctx, "", func(ctx context.Context) error {
		in := &progressReader{r: r, ctx: ctx, report: progress}
		plain, err := compression.DecompressStream(in)
		if err != nil {
			return fmt.Errorf("read the archive: %w", err)
		}
		defer plain.Close()
		index, err := archive.ImportIndex(ctx, s.content, plain)
		if err != nil {
			return fmt.Errorf("read the archive: %w", err)
		}
		entries, err := s.archiveEntries(ctx, index)
		if err != nil {
			return err
		}
		for _, e := range entries {
			in.showImage(e.String())
			img, err := s.loadEntry(ctx, e)
			if err != nil {
				return fmt.Errorf("image %s: %w", e, err)
			}
			loaded = append(loaded, img)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("failed to load images: %w", err)
	}
	// Later entries may have taken names from earlier ones, or given them more.
	for i, img := range loaded {
		if now, err := s.index.get(img.ID); err == nil {
			loaded[i] = now
		}
	}
	return loaded, nil
}

func (s *Store) loadEntry(ctx context.Context, e archiveEntry) (Image, error) {
	if err := s.unpack(ctx, e.target); err != nil {
		return Image{}, err
	}
	return s.name(ctx, e.target, e.names)
}

// archiveEntry is an image in an archive.
type archiveEntry struct {
	target ocispec.Descriptor
	names  []string
}

func (e archiveEntry) String() string {
	if len(e.names) > 0 {
		return e.names[0]
	}
	return e.target.Digest.String()
}

// archiveEntries lists the images of an archive's index, each with all names that it has there.
func (s *Store) archiveEntries(ctx context.Context, index ocispec.Descriptor) ([]archiveEntry, error) {
	blob, err := content.ReadBlob(ctx, s.content, index)
	if err != nil {
		return nil, fmt.Errorf("read the archive's index: %w", err)
	}
	var idx ocispec.Index
	if err := json.Unmarshal(blob, &idx); err != nil {
		return nil, fmt.Errorf("read the archive's index: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	var entries []archiveEntry
	at := map[digest.Digest]int{}
	for _, m := range idx.Manifests {
		if _, referrer := m.Annotations[images.AnnotationManifestSubject]; referrer {
			continue
		}
		if m.Platform != nil && !s.platform.Match(*m.Platform) {
			continue
		}
		i, ok := at[m.Digest]
		if !ok {
			i = len(entries)
			at[m.Digest] = i
			entries = append(entries, archiveEntry{target: m})
		}
		name, err := archiveName(m.Annotations)
		if err != nil {
			return nil, err
		}
		if name != "" {
			entries[i].names = append(entries[i].names, name)
		}
	}
	if len(entries) == 0 {
		return nil, fmt.Errorf("no match for platform in the archive: %w", errdefs.ErrNotFound)
	}
	return entries, nil
}

// archiveName reads an image's name from its entry: containerd's and docker's annotation has it in full; of the OCI's own, tools
// write either a whole reference or a bare tag, and a bare tag names nothing.
func archiveName(annotations map[string]string) (string, error) {
	name := annotations[images.AnnotationImageName]
	if name == "" {
		name = annotations[ocispec.AnnotationRefName]
		if !strings.ContainsAny(name, "/:") {
			return "", nil
		}
	}
	named, err := parseRef(name)
	if err != nil {
		return "", err
	}
	return named.String(), nil
}

// progressReader reports what was read, every megabyte, and ends with ctx.
type progressReader struct {
	r   io.Reader
	ctx context.Context

	mu       sync.Mutex // a decompressor may read from a goroutine of its own
	report   func(Progress)
	n, shown int64
}

// Read implements io.Reader.
func (p *progressReader) Read(b []byte) (int, error) {
	if err := p.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := p.r.Read(b)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.n += int64(n)
	const step = 1 << 20
	if p.n-p.shown >= step || err == io.EOF {
		p.shown = p.n
		p.report(Progress{Bytes: p.n})
	}
	return n, err
}

func (p *progressReader) showImage(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.report(Progress{Bytes: p.n, Image: name})
}
