package images

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"errand.dev/errand/test/registry"
)

// pulled returns a store with an image of two layers.
func pulled(t *testing.T) (*Store, Config, Image) {
	t.Helper()
	srv := startRegistry(t)
	push(t, srv, "library/a:1", func() (v1.Image, error) { return registry.Big(registry.Self(), 2, 1000) })
	cfg := testConfig(t, srv, nil)
	s := openStore(t, cfg)
	img, err := s.Pull(context.Background(), "a:1", nil)
	must(t, err)
	return s, cfg, img
}

func TestPrepareRootfs(t *testing.T) {
	s, cfg, img := pulled(t)
	ctx := context.Background()
	mounts, err := s.PrepareRootfs(ctx, "c1", img, RootOptions{})
	must(t, err)
	if len(mounts) != 1 || mounts[0].Type != "overlay" {
		t.Fatalf("mounts = %v", mounts)
	}
	options := strings.Join(mounts[0].Options, ",")
	if !strings.Contains(options, "volatile") {
		t.Errorf("not volatile: %s", options)
	}
	for _, o := range mounts[0].Options {
		_, dirs, ok := strings.Cut(o, "dir=")
		if !ok {
			continue
		}
		for i, dir := range strings.Split(dirs, ":") {
			if _, err := os.Stat(dir); err != nil {
				t.Errorf("%s: %v", o, err)
			}
			if strings.HasPrefix(o, "lowerdir=") {
				// The topmost layer comes first.
				if _, err := os.Stat(filepath.Join(dir, fmt.Sprintf("blob%d", 1-i))); err != nil {
					t.Errorf("layer %d: %v", i, err)
				}
			}
		}
	}

	if _, err := s.PrepareRootfs(ctx, "c1", img, RootOptions{}); !errdefs.IsAlreadyExists(err) {
		t.Errorf("again: %v", err)
	}
	for _, id := range []string{"", ".", "..", "a/b", "../x", strings.Repeat("x", 200)} {
		if _, err := s.PrepareRootfs(ctx, id, img, RootOptions{}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("ID %q: %v", id, err)
		}
		if err := s.RemoveRootfs(ctx, id); !errdefs.IsInvalidArgument(err) {
			t.Errorf("remove %q: %v", id, err)
		}
	}

	// After a restart they are still known.
	must(t, s.Close())
	s = openStore(t, cfg)
	if diff := cmp.Diff([]string{"c1"}, s.ListRootfs(ctx)); diff != "" {
		t.Errorf("roots (-want +got):\n%s", diff)
	}
	again, err := s.Rootfs(ctx, "c1")
	must(t, err)
	if diff := cmp.Diff(mounts, again); diff != "" {
		t.Errorf("mounts (-before +after):\n%s", diff)
	}

	must(t, s.RemoveRootfs(ctx, "c1"))
	must(t, s.RemoveRootfs(ctx, "c1"))
	if _, err := s.Rootfs(ctx, "c1"); !errdefs.IsNotFound(err) {
		t.Errorf("removed root: %v", err)
	}
	left, err := os.ReadDir(filepath.Join(cfg.Root, "rootfs"))
	must(t, err)
	if len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestRootfsOfEmptyImage(t *testing.T) {
	srv := startRegistry(t)
	push(t, srv, "library/empty:1", func() (v1.Image, error) { return registry.ImageOf("", nil) })
	s := newStore(t, srv)
	img, err := s.Pull(context.Background(), "empty:1", nil)
	must(t, err)
	mounts, err := s.PrepareRootfs(context.Background(), "c1", img, RootOptions{})
	must(t, err)
	if len(mounts) != 1 || mounts[0].Type != "bind" {
		t.Errorf("mounts = %v", mounts)
	}
	must(t, s.Remove(context.Background(), "empty:1")) // collects, with a user that has no layers
}

// A container keeps its layers when its image is removed, also over a restart; with the container they go.
func TestRootfsKeepsLayers(t *testing.T) {
	s, cfg, img := pulled(t)
	ctx := context.Background()
	_, err := s.PrepareRootfs(ctx, "c1", img, RootOptions{})
	must(t, err)
	must(t, s.Remove(ctx, img.ID))
	if _, err := s.PrepareRootfs(ctx, "c2", img, RootOptions{}); err != nil {
		t.Errorf("while another container keeps the layers: %v", err)
	}
	must(t, s.RemoveRootfs(ctx, "c2"))
	must(t, s.Close())

	s = openStore(t, cfg)
	_, err = s.Prune(ctx)
	must(t, err)
	mounts, err := s.Rootfs(ctx, "c1")
	must(t, err)
	for _, o := range mounts[0].Options {
		if dirs, ok := strings.CutPrefix(o, "lowerdir="); ok {
			for _, dir := range strings.Split(dirs, ":") {
				if _, err := os.Stat(dir); err != nil {
					t.Error(err)
				}
			}
		}
	}
	must(t, s.RemoveRootfs(ctx, "c1"))
	assertEmpty(t, s)
	if _, err := s.PrepareRootfs(ctx, "c3", img, RootOptions{}); !errdefs.IsNotFound(err) {
		t.Errorf("prepared a root over layers that are gone: %v", err)
	}
	if roots := s.ListRootfs(ctx); len(roots) > 0 {
		t.Errorf("left: %v", roots)
	}
}

// A crash in the midst of prepare or remove leaves a directory without its symlink.
func TestUnfinishedRootfsIsRemoved(t *testing.T) {
	s, cfg, _ := pulled(t)
	must(t, s.Close())
	must(t, os.MkdirAll(filepath.Join(cfg.Root, "rootfs", "half", "fs", "x"), 0o755))
	s = openStore(t, cfg)
	if roots := s.ListRootfs(context.Background()); len(roots) > 0 {
		t.Errorf("roots = %v", roots)
	}
	if _, err := os.Stat(filepath.Join(cfg.Root, "rootfs", "half")); !os.IsNotExist(err) {
		t.Errorf("the directory stayed: %v", err)
	}
}

// Containers are made while the image is removed again and again: either a root's layers exist for as long as the root does, or the
// root was refused.
func TestPrepareAgainstCollection(t *testing.T) {
	srv := startRegistry(t)
	push(t, srv, "library/a:1", small("a"))
	s := newStore(t, srv)
	ctx := context.Background()
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		defer close(stop)
		for range 6 {
			if _, err := s.Pull(ctx, "a:1", nil); err != nil {
				t.Error(err)
			}
			if err := s.Remove(ctx, "a:1"); err != nil {
				t.Error(err)
			}
		}
	})
	for worker := range 2 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				img, err := s.Get(ctx, "a:1")
				if err != nil {
					continue
				}
				id := fmt.Sprintf("c%d-%d", worker, i)
				mounts, err := s.PrepareRootfs(ctx, id, img, RootOptions{})
				if errdefs.IsNotFound(err) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				lower, _ := strings.CutPrefix(mounts[0].Options[2], "lowerdir=")
				if _, err := os.Stat(filepath.Join(lower, "hello")); err != nil {
					t.Error(err)
				}
				if err := s.RemoveRootfs(ctx, id); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func TestRootfsUsage(t *testing.T) {
	s, _, img := pulled(t)
	ctx := context.Background()
	_, err := s.PrepareRootfs(ctx, "c1", img, RootOptions{})
	must(t, err)
	before, err := s.RootfsUsage(ctx, "c1")
	must(t, err)
	upper, err := s.rootfs.upperOf("c1")
	must(t, err)
	must(t, os.WriteFile(filepath.Join(upper, "f"), registry.Random(1, 100_000), 0o600))
	must(t, os.Link(filepath.Join(upper, "f"), filepath.Join(upper, "g")))
	after, err := s.RootfsUsage(ctx, "c1")
	must(t, err)
	if grown := after.Bytes - before.Bytes; grown < 100_000 || grown > 150_000 {
		t.Errorf("usage grew by %d", grown)
	}
	if after.Inodes != before.Inodes+1 {
		t.Errorf("inodes: %d, then %d", before.Inodes, after.Inodes)
	}
	if _, err := s.RootfsUsage(ctx, "nosuch"); !errdefs.IsNotFound(err) {
		t.Errorf("err = %v", err)
	}
}
