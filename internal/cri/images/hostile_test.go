package images

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"errand.dev/errand/test/registry"
)

// hostile is a registry that serves whatever a test puts into it.
type hostile struct {
	t     *testing.T
	addr  string
	blobs map[string]served // by digest, and the root by its tag
	asked atomic.Int64
}

type served struct {
	mediaType string
	body      []byte
	// endless follows the body by more bytes than anybody wants.
	endless bool
}

const tooMuch = 64 << 20

func newHostile(t *testing.T) *hostile {
	h := &hostile{t: t, blobs: map[string]served{}}
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	h.addr = strings.TrimPrefix(srv.URL, "http://")
	return h
}

func (h *hostile) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.asked.Add(1)
	name := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
	b, ok := h.blobs[name]
	if !ok {
		if name != "" {
			http.NotFound(w, r)
		}
		return
	}
	w.Header().Set("Content-Type", b.mediaType)
	w.Header().Set("Docker-Content-Digest", digest.FromBytes(b.body).String())
	if !b.endless {
		w.Header().Set("Content-Length", fmt.Sprint(len(b.body)))
	}
	if r.Method == http.MethodHead {
		w.Header().Set("Content-Length", fmt.Sprint(len(b.body)))
		return
	}
	_, _ = w.Write(b.body)
	for n := 0; b.endless && n < tooMuch; n += 1 << 20 {
		if _, err := w.Write(make([]byte, 1<<20)); err != nil {
			return
		}
	}
}

// put serves bytes and returns what describes them.
func (h *hostile) put(mediaType string, body []byte) ocispec.Descriptor {
	d := digest.FromBytes(body)
	h.blobs[d.String()] = served{mediaType: mediaType, body: body}
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(body))}
}

func (h *hostile) putJSON(mediaType string, v any) ocispec.Descriptor {
	h.t.Helper()
	body, err := json.Marshal(v)
	must(h.t, err)
	return h.put(mediaType, body)
}

// root makes what desc describes the image evil:1.
func (h *hostile) root(desc ocispec.Descriptor) { h.blobs["1"] = h.blobs[desc.Digest.String()] }

func (h *hostile) config(edit func(*ocispec.Image), diffs ...digest.Digest) ocispec.Descriptor {
	img := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: diffs}}
	if edit != nil {
		edit(&img)
	}
	return h.putJSON(ocispec.MediaTypeImageConfig, img)
}

func (h *hostile) manifest(config ocispec.Descriptor, layers ...ocispec.Descriptor) ocispec.Descriptor {
	return h.putJSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: layers,
	})
}

func (h *hostile) index(manifests ...ocispec.Descriptor) ocispec.Descriptor {
	return h.putJSON(ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: manifests,
	})
}

// layer is a good one, and its diff ID.
func (h *hostile) layer() (ocispec.Descriptor, digest.Digest) {
	h.t.Helper()
	tar, err := registry.Tar(registry.Self(), registry.File{Name: "file", Body: []byte("x")})
	must(h.t, err)
	return h.put(ocispec.MediaTypeImageLayer, tar), digest.FromBytes(tar)
}

// Registries that serve what nobody should: the pull ends soon, with an error that says why, and leaves nothing.
func TestHostileRegistries(t *testing.T) {
	for name, tc := range map[string]struct {
		serve func(h *hostile)
		want  string // of the error; "" for none
		kept  bool   // it may be another's fault, and the next attempt can go on with what there is
	}{
		"nothing wrong": {func(h *hostile) {
			layer, diff := h.layer()
			h.root(h.index(h.manifest(h.config(nil, diff), layer)))
		}, "", false},
		"an index in an index": {func(h *hostile) {
			layer, diff := h.layer()
			h.root(h.index(h.index(h.manifest(h.config(nil, diff), layer))))
		}, "", false},
		"indexes without end": {func(h *hostile) {
			layer, diff := h.layer()
			desc := h.manifest(h.config(nil, diff), layer)
			for range 1000 {
				desc = h.index(desc)
			}
			h.root(desc)
		}, "nested", false},
		"an index that claims to be in itself": {func(h *hostile) {
			inner := h.index()
			outer := h.index(inner)
			h.blobs[inner.Digest.String()] = h.blobs[outer.Digest.String()]
			h.root(outer)
		}, "read past expected size", false},
		"an empty index": {func(h *hostile) { h.root(h.index()) }, "no match for platform", false},
		"a manifest of 5 MiB": {func(h *hostile) {
			layer, diff := h.layer()
			desc := h.manifest(h.config(nil, diff), layer)
			h.root(h.put(desc.MediaType, append(h.blobs[desc.Digest.String()].body, bytes.Repeat([]byte(" "), 5<<20)...)))
		}, "rejecting 524", false},
		"a manifest of 5 MiB in an index": {func(h *hostile) {
			layer, diff := h.layer()
			desc := h.manifest(h.config(nil, diff), layer)
			h.root(h.index(h.put(desc.MediaType, append(h.blobs[desc.Digest.String()].body, bytes.Repeat([]byte(" "), 5<<20)...))))
		}, "manifest is larger than 4 MiB", false},
		"a configuration of 5 MiB": {func(h *hostile) {
			layer, diff := h.layer()
			config := h.config(func(i *ocispec.Image) { i.Author = strings.Repeat("x", 5<<20) }, diff)
			h.root(h.manifest(config, layer))
		}, "configuration is larger", false},
		"a configuration that claims to be large": {func(h *hostile) {
			layer, diff := h.layer()
			config := h.config(nil, diff)
			config.Size = 1 << 40
			h.root(h.manifest(config, layer))
		}, "configuration is larger", false},
		"a manifest that is no JSON": {func(h *hostile) {
			h.root(h.put(ocispec.MediaTypeImageManifest, []byte("<html>not found</html>")))
		}, "invalid character", false},
		"an index served as a manifest": {func(h *hostile) {
			layer, diff := h.layer()
			index := h.index(h.manifest(h.config(nil, diff), layer))
			h.root(h.put(ocispec.MediaTypeImageManifest, h.blobs[index.Digest.String()].body))
		}, "media", false},
		"a web page": {func(h *hostile) { h.root(h.put("text/html", []byte("<html>log in</html>"))) }, "text/html", false},
		"a layer of a kind that nobody knows": {func(h *hostile) {
			layer, diff := h.layer()
			layer.MediaType = "application/x-unknown"
			h.root(h.manifest(h.config(nil, diff), layer))
		}, "can't be unpacked", false},
		"no container image": {func(h *hostile) {
			h.root(h.manifest(h.put("application/vnd.example.config+json", []byte("{}"))))
		}, "is not a container image", false},
		"a layer that is no archive": {func(h *hostile) {
			layer := h.put(ocispec.MediaTypeImageLayerGzip, []byte("this is no gzip"))
			h.root(h.manifest(h.config(nil, layer.Digest), layer))
		}, "failed to extract layer", true},
		"a layer with another content": {func(h *hostile) {
			layer, _ := h.layer()
			h.root(h.manifest(h.config(nil, digest.FromString("another")), layer))
		}, "wrong diff id", false},
		"more layers than the configuration tells": {func(h *hostile) {
			layer, diff := h.layer()
			h.root(h.manifest(h.config(nil, diff), layer, layer))
		}, "number of layers and diffIDs don't match", false},
		"a layer of negative size": {func(h *hostile) {
			layer, diff := h.layer()
			layer.Size = -1
			h.root(h.manifest(h.config(nil, diff), layer))
		}, "negative content size", false},
		"a layer that is longer than it says": {func(h *hostile) {
			layer, diff := h.layer()
			h.blobs[layer.Digest.String()] = served{mediaType: layer.MediaType, body: h.blobs[layer.Digest.String()].body, endless: true}
			h.root(h.manifest(h.config(nil, diff), layer))
		}, "read past expected size", false},
		"a layer that is shorter than it says": {func(h *hostile) {
			layer, diff := h.layer()
			layer.Size++
			h.root(h.manifest(h.config(nil, diff), layer))
		}, "connection ended after 2048 of 2049 bytes", true},
		"a layer from elsewhere": {func(h *hostile) {
			elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
				h.t.Error("a machine was asked for a layer that is no registry of the user's")
			}))
			h.t.Cleanup(elsewhere.Close)
			layer, diff := h.layer()
			layer.URLs = []string{elsewhere.URL + "/metadata"}
			h.root(h.manifest(h.config(nil, diff), layer))
		}, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHostile(t)
			tc.serve(h)
			s := newStore(t, startRegistry(t))
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			_, err := s.Pull(ctx, h.addr+"/evil:1", nil)
			if tc.want == "" {
				must(t, err)
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("the error is %.1000v, want %q", err, tc.want)
			}
			if ctx.Err() != nil {
				t.Errorf("it took a minute: %v", err)
			}
			if asked := h.asked.Load(); asked > 50 {
				t.Errorf("it took %d requests", asked)
			}
			if !tc.kept {
				assertEmpty(t, s)
			}
		})
	}
}

// A registry that is to be asked over TLS only doesn't get anything, nor its user's credentials, in the clear.
func TestNoRedirectToPlainHTTP(t *testing.T) {
	asked := 0
	plain := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ }))
	defer plain.Close()
	clients := newHTTPClients(Config{StallTimeout: time.Minute})
	defer clients.close()
	client, err := clients.get("registry.example.com", false)
	must(t, err)
	resp, err := client.Get(plain.URL)
	if err == nil {
		must(t, resp.Body.Close())
	}
	if err == nil || asked > 0 || !strings.Contains(err.Error(), "isn't encrypted") {
		t.Errorf("asked %d times, %v", asked, err)
	}
}
