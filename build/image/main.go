// Command image packs errand-controller into an OCI archive, without a daemon: an image for
// each architecture whose binary is named, under one index, as podman load,
// skopeo, ctr images import and kind load image-archive read it. The same input
// gives the same bytes.
//
//	image -o errand-controller.tar -name errand.dev/errand-controller:v1 -doc LICENSE amd64=bin/errand-controller
package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// user is whom the image runs as: nobody that a host has, and the same as in
// others' images without root.
const user = "65532"

// program is where errand-controller is in the image.
const program = "/usr/local/bin/errand-controller"

// What an archive's index says of the name, for containerd and for the rest.
const (
	containerdName = "io.containerd.image.name"
	refName        = "org.opencontainers.image.ref.name"
)

// image is what is to be packed.
type image struct {
	// name is the image's, with its tag.
	name string
	// created is the time of everything in it.
	created time.Time
	labels  map[string]string
	// docs are files that go with the program.
	docs []string
	// binaries are the program's, as ARCH=PATH.
	binaries []string
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	f := flag.NewFlagSet("image", flag.ExitOnError)
	var (
		img     image
		out     = f.String("o", "", "the archive to write")
		created = f.Int64("created", 0, "the time of everything in it, in seconds since 1970")
		version = f.String("version", "", "errand's version")
		commit  = f.String("revision", "", "the commit that it was built of")
	)
	f.StringVar(&img.name, "name", "", "the image's `NAME:TAG`")
	f.Func("doc", "a file to put beside it; may be repeated", func(path string) error { img.docs = append(img.docs, path); return nil })
	if err := f.Parse(args); err != nil {
		return err
	}
	img.binaries, img.created = f.Args(), time.Unix(*created, 0).UTC()
	img.labels = map[string]string{
		"org.opencontainers.image.title":    "errand-controller",
		"org.opencontainers.image.licenses": "Apache-2.0",
		"org.opencontainers.image.version":  *version,
		"org.opencontainers.image.revision": *commit,
	}
	if *out == "" || img.name == "" || len(img.binaries) == 0 {
		return errors.New("call it with -o, -name and a binary as ARCH=PATH")
	}
	return img.write(*out)
}

// write writes the archive, whole or not at all.
func (i image) write(path string) error {
	ref, err := name.NewTag(i.name, name.StrictValidation)
	if err != nil {
		return fmt.Errorf("-name: %w", err)
	}
	platforms, err := i.index()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "errand-image-")
	if err != nil {
		return fmt.Errorf("make a folder for the image: %w", err)
	}
	defer os.RemoveAll(dir)
	archive := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex), mutate.IndexAddendum{
		Add:        platforms,
		Descriptor: v1.Descriptor{Annotations: map[string]string{containerdName: ref.String(), refName: ref.String()}},
	})
	if _, err := layout.Write(dir, archive); err != nil {
		return fmt.Errorf("write the image: %w", err)
	}
	return i.archive(dir, path)
}

// index is the image for all architectures.
func (i image) index() (v1.ImageIndex, error) {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, b := range i.binaries {
		arch, path, ok := strings.Cut(b, "=")
		if !ok {
			return nil, fmt.Errorf("%q isn't ARCH=PATH", b)
		}
		img, err := i.of(arch, path)
		if err != nil {
			return nil, fmt.Errorf("the image for %s: %w", arch, err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add:        img,
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
		})
	}
	return index, nil
}

// of is the image for one architecture.
func (i image) of(arch, binary string) (v1.Image, error) {
	blob, err := i.files(binary)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(blob)), nil },
		tarball.WithMediaType(types.OCILayer), tarball.WithCompressedCaching)
	if err != nil {
		return nil, err
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err = mutate.ConfigFile(img, &v1.ConfigFile{
		OS: "linux", Architecture: arch, Created: v1.Time{Time: i.created}, RootFS: v1.RootFS{Type: "layers"},
		Config: v1.Config{
			User: user + ":" + user, Entrypoint: []string{program}, Labels: i.labels, WorkingDir: "/",
			Env: []string{"PATH=" + filepath.Dir(program)},
		},
	})
	if err != nil {
		return nil, err
	}
	return mutate.Append(img, mutate.Addendum{
		Layer:   layer,
		History: v1.History{Created: v1.Time{Time: i.created}, CreatedBy: "make image"},
	})
}

// files is the image's file system, as a tar archive.
func (i image) files(binary string) ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	content := []file{
		{"etc/passwd", 0o644, []byte("errand:x:" + user + ":" + user + "::/:/\n")},
		{"etc/group", 0o644, []byte("errand:x:" + user + ":\n")},
	}
	read := func(to string, mode fs.FileMode, from string) error {
		b, err := os.ReadFile(from)
		content = append(content, file{to, mode, b})
		return err
	}
	if err := read(strings.TrimPrefix(program, "/"), 0o755, binary); err != nil {
		return nil, err
	}
	for _, doc := range i.docs {
		if err := read("usr/local/share/doc/errand/"+filepath.Base(doc), 0o644, doc); err != nil {
			return nil, err
		}
	}
	made := map[string]bool{}
	for _, f := range content {
		if err := i.folders(w, filepath.Dir(f.path), made); err != nil {
			return nil, err
		}
		if err := i.add(w, tar.Header{Typeflag: tar.TypeReg, Name: f.path, Mode: int64(f.mode), Size: int64(len(f.body))}, f.body); err != nil {
			return nil, err
		}
	}
	return buf.Bytes(), w.Close()
}

type file struct {
	path string
	mode fs.FileMode
	body []byte
}

// folders adds a folder with those above it, unless they have been made.
func (i image) folders(w *tar.Writer, dir string, made map[string]bool) error {
	if dir == "." || made[dir] {
		return nil
	}
	if err := i.folders(w, filepath.Dir(dir), made); err != nil {
		return err
	}
	made[dir] = true
	return i.add(w, tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755}, nil)
}

func (i image) add(w *tar.Writer, h tar.Header, body []byte) error {
	h.ModTime, h.Format = i.created, tar.FormatPAX
	if err := w.WriteHeader(&h); err != nil {
		return err
	}
	_, err := w.Write(body)
	return err
}

// archive packs the folder of an image layout, in the order of its names.
func (i image) archive(dir, path string) (err error) {
	partial := path + ".partial"
	out, err := os.Create(partial)
	if err != nil {
		return fmt.Errorf("write the archive: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("write %s: %w", path, errors.Join(err, out.Close(), os.Remove(partial)))
		}
	}()
	var names []string
	err = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			names = append(names, p)
		}
		return err
	})
	if err != nil {
		return err
	}
	slices.Sort(names)
	w := tar.NewWriter(out)
	for _, n := range names {
		body, err := os.ReadFile(n)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, n)
		if err != nil {
			return err
		}
		if err := i.add(w, tar.Header{Typeflag: tar.TypeReg, Name: rel, Mode: 0o644, Size: int64(len(body))}, body); err != nil {
			return err
		}
	}
	if err := errors.Join(w.Close(), out.Close()); err != nil {
		return err
	}
	return os.Rename(partial, path)
}
