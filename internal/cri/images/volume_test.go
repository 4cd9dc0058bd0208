package images

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"errand.dev/errand/test/registry"
)

// layerPaths are the directories that mounts show.
func layerPaths(mounts []mount.Mount) []string {
	var dirs []string
	for _, m := range mounts {
		if m.Type == "bind" {
			dirs = append(dirs, m.Source)
		}
		for _, o := range m.Options {
			if list, ok := strings.CutPrefix(o, "lowerdir="); ok {
				dirs = append(dirs, strings.Split(list, ":")...)
			}
		}
	}
	return dirs
}

// An image that a container mounts keeps its layers when it is removed, also over a restart; with the container they go.
func TestImageVolumeKeepsLayers(t *testing.T) {
	srv := startRegistry(t)
	for ref, layers := range map[string]int{"library/own:1": 1, "library/one:1": 1, "library/three:1": 3} {
		push(t, srv, ref, func() (v1.Image, error) { return registry.Big(registry.Self(), layers, 1000+layers) })
	}
	cfg := testConfig(t, srv, nil)
	s := openStore(t, cfg)
	ctx := context.Background()
	pull := func(ref string) Image {
		img, err := s.Pull(ctx, ref, nil)
		must(t, err)
		return img
	}
	_, err := s.PrepareRootfs(ctx, "c1", pull("own:1"), RootOptions{})
	must(t, err)
	var dirs []string
	for name, ref := range map[string]string{"0": "one:1", "7": "three:1"} {
		img := pull(ref)
		mounts, err := s.PrepareImageVolume(ctx, "c1", name, img)
		must(t, err)
		if options := mounts[0].Options; len(mounts) != 1 || !slices.Contains(options, "ro") || slices.Contains(options, "noexec") || slices.Contains(options, "volatile") {
			t.Errorf("%s is mounted as %v", ref, mounts)
		}
		dirs = append(dirs, layerPaths(mounts)...)
		must(t, s.Remove(ctx, img.ID))
	}
	if len(dirs) != 4 {
		t.Fatalf("four layers are shown as %v", dirs)
	}
	there := func() (n int) {
		for _, dir := range dirs {
			if _, err := os.Stat(dir); err == nil {
				n++
			}
		}
		return n
	}
	must(t, s.Close())
	s = openStore(t, cfg)
	_, err = s.Prune(ctx)
	must(t, err)
	if n := there(); n != 4 {
		t.Errorf("%d of 4 layers are left while a container mounts them", n)
	}
	must(t, s.RemoveRootfs(ctx, "c1"))
	if n := there(); n != 0 {
		t.Errorf("%d layers are left of images that are gone", n)
	}
}

func TestImageVolumeErrors(t *testing.T) {
	s, _, img := pulled(t)
	ctx := context.Background()
	if _, err := s.PrepareImageVolume(ctx, "c1", "v", img); !errdefs.IsNotFound(err) {
		t.Errorf("of a container without a root: %v", err)
	}
	_, err := s.PrepareRootfs(ctx, "c1", img, RootOptions{})
	must(t, err)
	_, err = s.PrepareImageVolume(ctx, "c1", "v", img)
	must(t, err)
	if _, err := s.PrepareImageVolume(ctx, "c1", "v", img); !errdefs.IsAlreadyExists(err) {
		t.Errorf("a second time: %v", err)
	}
	if _, err := s.PrepareImageVolume(ctx, "c1", "../v", img); !errdefs.IsInvalidArgument(err) {
		t.Errorf("a name that leads elsewhere: %v", err)
	}
	if _, err := s.PrepareImageVolume(ctx, "c1", "gone", Image{ChainID: "sha256:0"}); !errdefs.IsNotFound(err) {
		t.Errorf("of an image that is gone: %v", err)
	}
	mounts, err := s.PrepareImageVolume(ctx, "c1", "empty", Image{})
	if err != nil || mounts[0].Type != "tmpfs" {
		t.Errorf("of an image without layers: %v, %v", mounts, err)
	}
}
