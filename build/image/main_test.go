package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
)

// pack packs two binaries that aren't any, in a folder of its own.
func pack(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	args := []string{"-o", filepath.Join(dir, "errand.tar"), "-name", "errand.dev/errand-controller:v1", "-created", "1700000000", "-version", "v1", "-doc", filepath.Join(dir, "LICENSE")}
	for name, body := range map[string]string{"LICENSE": "free", "a": "for amd64", "b": "for arm64"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := run(append(args, "amd64="+filepath.Join(dir, "a"), "arm64="+filepath.Join(dir, "b"))); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "errand.tar")
}

func TestTheSameInputGivesTheSameBytes(t *testing.T) {
	a, err := os.ReadFile(pack(t))
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(pack(t))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		t.Error("two archives differ")
	}
}

func TestImage(t *testing.T) {
	root, err := layout.ImageIndexFromPath(unpack(t, pack(t)))
	if err != nil {
		t.Fatal(err)
	}
	m, err := root.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Manifests) != 1 || m.Manifests[0].Annotations[containerdName] != "errand.dev/errand-controller:v1" || m.Manifests[0].Annotations[refName] != "errand.dev/errand-controller:v1" {
		t.Fatalf("the archive has %+v", m.Manifests)
	}
	index, err := root.ImageIndex(m.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	if m, err = index.IndexManifest(); err != nil {
		t.Fatal(err)
	}
	var arches []string
	for _, d := range m.Manifests {
		img, err := index.Image(d.Digest)
		if err != nil {
			t.Fatal(err)
		}
		arches = append(arches, d.Platform.OS+"/"+d.Platform.Architecture)
		wantImage(t, img, d.Platform.Architecture)
	}
	if diff := cmp.Diff([]string{"linux/amd64", "linux/arm64"}, arches); diff != "" {
		t.Errorf("platforms (-want +got):\n%s", diff)
	}
}

func wantImage(t *testing.T, img v1.Image, arch string) {
	t.Helper()
	conf, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if c := conf.Config; c.User != "65532:65532" || len(c.Entrypoint) != 1 || c.Entrypoint[0] != program || conf.Architecture != arch || conf.Created.Unix() != 1700000000 {
		t.Errorf("its config is %+v", conf)
	}
	layers, err := img.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("it has %d layers: %v", len(layers), err)
	}
	r, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var files []string
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg && !strings.HasPrefix(h.Name, "etc/") {
			files = append(files, fmt.Sprintf("%s %o %s", h.Name, h.Mode, body))
		}
	}
	if diff := cmp.Diff([]string{"usr/local/bin/errand-controller 755 for " + arch, "usr/local/share/doc/errand/LICENSE 644 free"}, files); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func unpack(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	dir := t.TempDir()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return dir
		} else if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(dir, h.Name)
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWrongCalls(t *testing.T) {
	out := filepath.Join(t.TempDir(), "o")
	for _, args := range [][]string{
		{},
		{"-o", out, "-name", "errand.dev/errand-controller:v1"},
		{"-o", out, "-name", "errand.dev/errand-controller:v1", "amd64"},
		{"-o", out, "-name", "errand.dev/errand-controller:v1", "amd64=" + out + "-none"},
		{"-o", out, "-name", "errand.dev/errand-controller:a+b", "amd64=" + out},
	} {
		if err := run(args); err == nil {
			t.Errorf("%q made an image", args)
		}
		if _, err := os.Stat(out); err == nil {
			t.Errorf("%q left an archive", args)
		}
	}
}
