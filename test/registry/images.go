package registry

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"runtime"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/compression"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// epoch is the time of everything in an image: the same input gives the same digests.
var epoch = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)

// File is an entry of a layer.
type File struct {
	Name string
	// Mode are the permission bits; 0 means 0644, of a directory 0755.
	Mode int64
	// Body is a regular file's content.
	Body []byte
	// Link is the target of a symlink (the default) or, with Type tar.TypeLink, of a hard link.
	Link string
	// Type is a tar.Type…; 0 is guessed: a symlink if there is a Link, a directory if Name ends with "/", else a file.
	Type byte
	// Major and Minor number a device.
	Major, Minor int64
}

// Owner is whom the files of an image belong to. Tests that unpack without root need themselves.
type Owner struct{ UID, GID int }

// Self is the owner under which this process may unpack.
func Self() Owner { return Owner{os.Geteuid(), os.Getegid()} }

// Layer makes a gzip-compressed layer of files.
func Layer(owner Owner, files ...File) (v1.Layer, error) {
	return layer(owner, files)
}

// ZstdLayer makes a zstd-compressed layer of files.
func ZstdLayer(owner Owner, files ...File) (v1.Layer, error) {
	return layer(owner, files, tarball.WithCompression(compression.ZStd), tarball.WithMediaType(types.OCILayerZStd))
}

func layer(owner Owner, files []File, opts ...tarball.LayerOption) (v1.Layer, error) {
	blob, err := Tar(owner, files...)
	if err != nil {
		return nil, err
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(blob)), nil }
	opts = append([]tarball.LayerOption{tarball.WithMediaType(types.OCILayer), tarball.WithCompressedCaching}, opts...)
	l, err := tarball.LayerFromOpener(open, opts...)
	if err != nil {
		return nil, fmt.Errorf("make a layer: %w", err)
	}
	return l, nil
}

// Tar makes a tar archive of files.
func Tar(owner Owner, files ...File) ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		hdr := &tar.Header{
			Name: f.Name, Mode: f.Mode, Linkname: f.Link, Typeflag: f.Type, Size: int64(len(f.Body)),
			Uid: owner.UID, Gid: owner.GID, Devmajor: f.Major, Devminor: f.Minor, ModTime: epoch, Format: tar.FormatPAX,
		}
		if hdr.Typeflag == 0 {
			switch {
			case f.Link != "":
				hdr.Typeflag = tar.TypeSymlink
			case strings.HasSuffix(f.Name, "/"):
				hdr.Typeflag = tar.TypeDir
			default:
				hdr.Typeflag = tar.TypeReg
			}
		}
		if hdr.Mode == 0 {
			hdr.Mode = 0o644
			if hdr.Typeflag == tar.TypeDir || hdr.Typeflag == tar.TypeSymlink {
				hdr.Mode = 0o755
			}
		}
		if err := w.WriteHeader(hdr); err != nil {
			return nil, fmt.Errorf("tar %s: %w", f.Name, err)
		}
		if _, err := w.Write(f.Body); err != nil {
			return nil, fmt.Errorf("tar %s: %w", f.Name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("tar: %w", err)
	}
	return buf.Bytes(), nil
}

// ImageOf makes an image for linux/arch ("" means this machine's) from layers. edit may be nil.
func ImageOf(arch string, edit func(*v1.Config), layers ...v1.Layer) (v1.Image, error) {
	if arch == "" {
		arch = runtime.GOARCH
	}
	img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	img = mutate.ConfigMediaType(img, types.OCIConfigJSON)
	img, err := mutate.ConfigFile(img, &v1.ConfigFile{
		Architecture: arch,
		OS:           "linux",
		Created:      v1.Time{Time: epoch},
		RootFS:       v1.RootFS{Type: "layers"},
	})
	if err == nil {
		img, err = mutate.AppendLayers(img, layers...)
	}
	if err != nil {
		return nil, fmt.Errorf("make an image: %w", err)
	}
	conf := v1.Config{Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}}
	if edit != nil {
		edit(&conf)
	}
	if img, err = mutate.Config(img, conf); err != nil {
		return nil, fmt.Errorf("make an image: %w", err)
	}
	return img, nil
}

// IndexOf makes a multi-platform index of images, each under the platform in its config.
func IndexOf(imgs ...v1.Image) (v1.ImageIndex, error) {
	idx := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, img := range imgs {
		conf, err := img.ConfigFile()
		if err != nil {
			return nil, fmt.Errorf("make an index: %w", err)
		}
		idx = mutate.AppendManifests(idx, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{
			Platform: &v1.Platform{OS: conf.OS, Architecture: conf.Architecture, Variant: conf.Variant},
		}})
	}
	return idx, nil
}

// Busybox makes what docker.io/library/busybox is: an index with an image for this machine, made of the host's busybox with a
// hard link for each of its applets, as there, whose command is sh.
func Busybox(owner Owner) (v1.ImageIndex, error) {
	img, err := BusyboxImage(owner)
	if err != nil {
		return nil, err
	}
	return IndexOf(img)
}

// BusyboxImage is the image in Busybox's index.
func BusyboxImage(owner Owner) (v1.Image, error) {
	files, err := busyboxFiles()
	if err != nil {
		return nil, err
	}
	l, err := Layer(owner, files...)
	if err != nil {
		return nil, err
	}
	return ImageOf("", func(c *v1.Config) { c.Cmd = []string{"sh"} }, l)
}

func busyboxFiles() ([]File, error) {
	bin, err := exec.LookPath("busybox")
	if err != nil {
		return nil, errors.New("no busybox on this machine: install the package busybox-static")
	}
	body, err := os.ReadFile(bin)
	if err != nil {
		return nil, fmt.Errorf("read busybox: %w", err)
	}
	if bytes.Contains(body, []byte("/ld-linux")) || bytes.Contains(body, []byte("/ld-musl")) {
		return nil, fmt.Errorf("%s is linked dynamically and can't run in an image of its own: install the package busybox-static", bin)
	}
	list, err := exec.Command(bin, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("list busybox's applets: %w", err)
	}
	files := []File{{Name: "bin/"}, {Name: "bin/busybox", Mode: 0o755, Body: body}}
	for applet := range strings.FieldsSeq(string(list)) {
		if applet != "busybox" {
			files = append(files, File{Name: path.Join("bin", applet), Type: tar.TypeLink, Link: "bin/busybox", Mode: 0o755})
		}
	}
	return append(files,
		File{Name: "dev/"}, File{Name: "etc/"}, File{Name: "home/"}, File{Name: "proc/"}, File{Name: "sys/"}, File{Name: "usr/"},
		File{Name: "usr/bin/"}, File{Name: "usr/bin/env", Link: "../../bin/env"}, File{Name: "var/"}, File{Name: "var/spool/"},
		File{Name: "root/", Mode: 0o700}, File{Name: "tmp/", Mode: 0o1777}, File{Name: "var/tmp/", Mode: 0o1777},
		File{Name: "etc/passwd", Body: []byte("root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n")},
		File{Name: "etc/group", Body: []byte("root:x:0:\ndaemon:x:1:\nnobody:x:65534:\n")},
	), nil
}

// Small makes an image of one layer with one small file, whose content is text.
func Small(owner Owner, text string) (v1.Image, error) {
	l, err := Layer(owner, File{Name: "hello", Body: []byte(text)})
	if err != nil {
		return nil, err
	}
	return ImageOf("", func(c *v1.Config) { c.Cmd = []string{"/hello"} }, l)
}

// Random makes size incompressible bytes, the same for the same seed.
func Random(seed uint64, size int) []byte {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	b := make([]byte, size)
	_, _ = rand.NewChaCha8(key).Read(b) // never fails
	return b
}

// Big makes an image with the given number of layers, each of size incompressible bytes.
func Big(owner Owner, layers, size int) (v1.Image, error) {
	var ls []v1.Layer
	for i := range layers {
		l, err := Layer(owner, File{Name: fmt.Sprintf("blob%d", i), Body: Random(uint64(i)+1, size)})
		if err != nil {
			return nil, err
		}
		ls = append(ls, l)
	}
	return ImageOf("", nil, ls...)
}

// WrongArch makes an index that has an image for another architecture only.
func WrongArch(owner Owner) (v1.ImageIndex, error) {
	arch := "s390x"
	if runtime.GOARCH == arch {
		arch = "ppc64le"
	}
	l, err := Layer(owner, File{Name: "hello", Body: []byte("from elsewhere")})
	if err != nil {
		return nil, err
	}
	img, err := ImageOf(arch, nil, l)
	if err != nil {
		return nil, err
	}
	return IndexOf(img)
}
