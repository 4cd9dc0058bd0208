package images

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/klauspost/compress/zstd"

	"errand.dev/errand/test/registry"
)

// dockerArchive is what `docker save` writes of img under refs.
func dockerArchive(t *testing.T, img v1.Image, refs ...string) []byte {
	t.Helper()
	byRef := map[name.Reference]v1.Image{}
	for _, ref := range refs {
		parsed, err := name.ParseReference(ref)
		must(t, err)
		byRef[parsed] = img
	}
	var buf bytes.Buffer
	must(t, tarball.MultiRefWrite(byRef, &buf))
	return buf.Bytes()
}

// ociArchive is an OCI layout in a tar, its one entry annotated.
func ociArchive(t *testing.T, img v1.Image, annotations map[string]string) []byte {
	t.Helper()
	dir := t.TempDir()
	path, err := layout.Write(dir, empty.Index)
	must(t, err)
	must(t, path.AppendImage(img, layout.WithAnnotations(annotations)))
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	must(t, w.AddFS(os.DirFS(dir)))
	must(t, w.Close())
	return buf.Bytes()
}

func gzipped(t *testing.T, b []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	_, err := w.Write(b)
	must(t, err)
	must(t, w.Close())
	return buf.Bytes()
}

func zstded(t *testing.T, b []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	must(t, err)
	defer func() { must(t, w.Close()) }()
	return w.EncodeAll(b, nil)
}

func TestLoad(t *testing.T) {
	srv := startRegistry(t)
	img, err := registry.Big(registry.Self(), 2, 700_000)
	must(t, err)
	id, err := img.ConfigName()
	must(t, err)
	docker := dockerArchive(t, img, "busybox:1", "busybox:2", "quay.io/x/y:3")
	tags := []string{"docker.io/library/busybox:1", "docker.io/library/busybox:2", "quay.io/x/y:3"}
	for _, tc := range []struct {
		name    string
		archive []byte
		tags    []string
	}{
		{"docker", docker, tags},
		{"docker, gzip", gzipped(t, docker), tags},
		{"docker, zstd", zstded(t, docker), tags},
		{"OCI, containerd's name", ociArchive(t, img, map[string]string{"io.containerd.image.name": "docker.io/library/a:1", "org.opencontainers.image.ref.name": "1"}), []string{"docker.io/library/a:1"}},
		{"OCI, reference", ociArchive(t, img, map[string]string{"org.opencontainers.image.ref.name": "a:1"}), []string{"docker.io/library/a:1"}},
		{"OCI, bare tag", ociArchive(t, img, map[string]string{"org.opencontainers.image.ref.name": "latest"}), nil},
		{"OCI, gzip, no name", gzipped(t, ociArchive(t, img, nil)), nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStore(t, srv)
			ctx := context.Background()
			var last Progress
			shownImage := false
			got, err := s.Load(ctx, bytes.NewReader(tc.archive), func(p Progress) {
				if p.Bytes < last.Bytes {
					t.Errorf("progress went from %d to %d", last.Bytes, p.Bytes)
				}
				last = p
				shownImage = shownImage || p.Image != ""
			})
			must(t, err)
			if len(got) != 1 || got[0].ID != id.String() {
				t.Fatalf("loaded %+v", got)
			}
			if diff := cmp.Diff(tc.tags, got[0].RepoTags); diff != "" {
				t.Errorf("tags (-want +got):\n%s", diff)
			}
			if last.Bytes != int64(len(tc.archive)) || !shownImage {
				t.Errorf("last progress %+v of %d bytes", last, len(tc.archive))
			}
			if _, err := s.PrepareRootfs(ctx, "c1", got[0], RootOptions{}); err != nil {
				t.Error(err)
			}
			must(t, s.RemoveRootfs(ctx, "c1"))
			must(t, s.Remove(ctx, got[0].ID))
			assertEmpty(t, s)
		})
	}
}

func TestLoadErrors(t *testing.T) {
	srv := startRegistry(t)
	img, err := registry.Big(registry.Self(), 1, 100_000)
	must(t, err)
	whole := dockerArchive(t, img, "a:1")
	foreign, err := registry.ImageOf("s390x", nil)
	must(t, err)
	emptyTar, err := registry.Tar(registry.Self())
	must(t, err)
	twisted, err := mutate.ConfigFile(img, &v1.ConfigFile{Architecture: "amd64", OS: "linux", RootFS: v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{{Algorithm: "sha256", Hex: strings.Repeat("0", 64)}}}})
	must(t, err)
	for _, tc := range []struct {
		name    string
		archive []byte
		want    string
	}{
		{"truncated", whole[:len(whole)/2], "unexpected EOF"},
		{"truncated gzip", gzipped(t, whole)[:1000], "unexpected EOF"},
		{"nothing", nil, ""},
		{"not an archive", []byte(strings.Repeat("hello ", 1000)), "archive"},
		{"no image", emptyTar, "unrecognized image format"},
		{"other platform", dockerArchive(t, foreign, "a:1"), "no match for platform"},
		{"wrong diff ID", ociArchive(t, twisted, nil), "wrong diff id"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStore(t, srv)
			got, err := s.Load(context.Background(), bytes.NewReader(tc.archive), nil)
			if err == nil {
				t.Fatalf("loaded %v", got)
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("err = %v, want %s", err, tc.want)
			}
			assertEmpty(t, s)
		})
	}
}

func TestLoadIsCancelled(t *testing.T) {
	s := newStore(t, startRegistry(t))
	ctx, cancel := context.WithCancel(context.Background())
	img, err := registry.Big(registry.Self(), 1, 3_000_000)
	must(t, err)
	_, err = s.Load(ctx, bytes.NewReader(dockerArchive(t, img, "a:1")), func(Progress) { cancel() })
	if err == nil {
		t.Fatal("loaded")
	}
	assertEmpty(t, s)
}

// Layers that try to write, link or delete outside of where they are unpacked to: either the image is refused, or all of it stays
// inside.
func TestMaliciousLayers(t *testing.T) {
	srv := startRegistry(t)
	up := strings.Repeat("../", 12)
	for name, files := range map[string]func(victim string) []registry.File{
		"dot dot": func(v string) []registry.File {
			return []registry.File{{Name: up + v + "/evil", Body: []byte("x")}}
		},
		"absolute": func(v string) []registry.File {
			return []registry.File{{Name: v + "/evil", Body: []byte("x")}}
		},
		"through an absolute symlink": func(v string) []registry.File {
			return []registry.File{{Name: "link", Link: v}, {Name: "link/evil", Body: []byte("x")}}
		},
		"through a relative symlink": func(v string) []registry.File {
			return []registry.File{{Name: "link", Link: up + v}, {Name: "link/evil", Body: []byte("x")}}
		},
		"over a symlink": func(v string) []registry.File {
			return []registry.File{{Name: "link", Link: v + "/secret"}, {Name: "link", Body: []byte("x")}}
		},
		"symlinked directory made a directory": func(v string) []registry.File {
			return []registry.File{{Name: "link", Link: v}, {Name: "link/", Mode: 0o777}, {Name: "link/evil", Body: []byte("x")}}
		},
		"hard link outward": func(v string) []registry.File {
			return []registry.File{{Name: "stolen", Type: tar.TypeLink, Link: up + v + "/secret"}}
		},
		"hard link outward by a symlink": func(v string) []registry.File {
			return []registry.File{{Name: "link", Link: v}, {Name: "stolen", Type: tar.TypeLink, Link: "link/secret"}}
		},
		"hard link to a symlink, then written": func(v string) []registry.File {
			return []registry.File{{Name: "link", Link: v + "/secret"}, {Name: "hard", Type: tar.TypeLink, Link: "link"}, {Name: "hard", Body: []byte("x")}}
		},
		"whiteout outward": func(v string) []registry.File {
			return []registry.File{{Name: up + v + "/.wh.secret"}}
		},
		"whiteout through a symlink": func(v string) []registry.File {
			return []registry.File{{Name: "link", Link: v}, {Name: "link/.wh.secret"}}
		},
		"opaque through a symlink": func(v string) []registry.File {
			return []registry.File{{Name: "link", Link: v}, {Name: "link/.wh..wh..opq"}}
		},
		"whiteout of dot dot": func(v string) []registry.File {
			return []registry.File{{Name: "a/"}, {Name: "a/.wh..."}, {Name: "a/.wh.."}}
		},
		"a device": func(string) []registry.File {
			return []registry.File{{Name: "sda", Type: tar.TypeBlock, Major: 8, Minor: 0, Mode: 0o666}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			victim := filepath.Join(t.TempDir(), "victim")
			must(t, os.Mkdir(victim, 0o755))
			writeFile(t, filepath.Join(victim, "secret"), "secret")
			before := listing(t, victim)
			push(t, srv, "library/evil:1", func() (v1.Image, error) {
				l, err := registry.Layer(registry.Self(), files(victim)...)
				must(t, err)
				return registry.ImageOf("", nil, l)
			})
			s := newStore(t, srv)
			_, err := s.Pull(context.Background(), "evil:1", nil)
			t.Logf("pull: %v", err)
			if diff := cmp.Diff(before, listing(t, victim)); diff != "" {
				t.Errorf("it got out (-before +after):\n%s", diff)
			}
			if err != nil {
				assertEmpty(t, s)
			}
		})
	}
}

// listing is everything about the files in a directory that an attack could change.
func listing(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		must(t, err)
		info, err := d.Info()
		must(t, err)
		var body []byte
		if d.Type().IsRegular() {
			f, err := os.Open(path)
			must(t, err)
			body, err = io.ReadAll(f)
			must(t, err)
			must(t, f.Close())
		}
		out = append(out, strings.Join([]string{path, info.Mode().String(), info.ModTime().String(), string(body), links(info)}, " "))
		return nil
	}))
	return out
}
