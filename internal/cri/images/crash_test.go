package images

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"errand.dev/errand/test/registry"
)

// crashEnv tells the test binary to be a process that pulls an image and is killed meanwhile: "<root>|<registries.conf>|<ref>".
const crashEnv = "ERRAND_TEST_PULL"

// pullForever is what that process does. It never returns before it is killed, unless something is wrong.
func pullForever(spec string) error {
	args := strings.Split(spec, "|")
	s, err := New(context.Background(), Config{Root: args[0], RegistriesConf: args[1], CertDirs: []string{}, Snapshotter: SnapshotterOverlay})
	if err != nil {
		return err
	}
	_, err = s.Pull(context.Background(), args[2], nil)
	return fmt.Errorf("the pull ended: %w", err)
}

// kill -9 while an image is pulled, at the manifest, the config and each layer: the store opens, holds nothing of it, and the next
// pull works. An image that was there before still is.
func TestKilledWhilePulling(t *testing.T) {
	srv := startRegistry(t)
	push(t, srv, "library/before:1", small("before"))
	img := push(t, srv, "library/a:1", func() (v1.Image, error) { return registry.Big(registry.Self(), 3, 200_000) })
	manifest, err := img.Manifest()
	must(t, err)
	points := map[string]func(*registryRequest) bool{
		"manifest": func(r *registryRequest) bool { return registry.Manifest(r) && r.Method == "GET" },
		"config":   registry.Blob(manifest.Config.Digest.Hex),
	}
	for i, l := range manifest.Layers {
		points[fmt.Sprintf("layer %d", i)] = registry.Blob(l.Digest.Hex)
	}
	for name, point := range points {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t, srv, nil)
			s := openStore(t, cfg)
			_, err := s.Pull(context.Background(), "before:1", nil)
			must(t, err)
			must(t, s.Close())

			reached := make(chan struct{}, 100)
			srv.AddFault(func(r *registryRequest) bool {
				if point(r) {
					reached <- struct{}{}
					return true
				}
				return false
			}, registry.Always, registry.Stall(100))
			defer srv.ClearFaults()
			child := exec.Command(os.Args[0])
			child.Env = append(os.Environ(), fmt.Sprintf("%s=%s|%s|a:1", crashEnv, cfg.Root, cfg.RegistriesConf))
			child.Stderr = os.Stderr
			must(t, child.Start())
			select {
			case <-reached:
			case <-waitChild(child):
				t.Fatal("the child ended by itself")
			}
			must(t, child.Process.Kill())
			<-waitChild(child)
			srv.ClearFaults()

			s = openStore(t, cfg)
			if got := s.List(context.Background()); len(got) != 1 {
				t.Errorf("images = %v", got)
			}
			ctx := s.context(context.Background())
			blobs, err := s.imageUsage(ctx)
			must(t, err)
			freed, err := s.Prune(ctx)
			must(t, err)
			if freed != (Usage{}) {
				t.Errorf("%+v of %+v was garbage", freed, blobs)
			}
			_, err = s.Pull(ctx, "a:1", nil)
			must(t, err)
			must(t, s.Close())
		})
	}
}

// waitChild is closed when child has ended. It is called once per way to wait.
func waitChild(child *exec.Cmd) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = child.Process.Wait()
	}()
	return done
}

func TestSecondProcessIsRefused(t *testing.T) {
	srv := startRegistry(t)
	cfg := testConfig(t, srv, nil)
	openStore(t, cfg)
	_, err := New(context.Background(), cfg)
	if err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("err = %v", err)
	}
}

// Content that vanished from below the database: the image is dropped at the start and pulled anew.
func TestLostContent(t *testing.T) {
	srv := startRegistry(t)
	push(t, srv, "library/a:1", small("a"))
	push(t, srv, "library/b:1", small("b"))
	for name, lose := range map[string]func(*Store, Image) string{
		"config":   func(s *Store, img Image) string { return s.cfg.Root + "/content/blobs/sha256/" + img.ID[7:] },
		"manifest": func(s *Store, img Image) string { return s.cfg.Root + "/content/blobs/sha256/" + img.Target.Encoded() },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t, srv, nil)
			s := openStore(t, cfg)
			ctx := context.Background()
			img, err := s.Pull(ctx, "a:1", nil)
			must(t, err)
			_, err = s.Pull(ctx, "b:1", nil)
			must(t, err)
			must(t, s.Close())
			must(t, os.Remove(lose(s, img)))
			s = openStore(t, cfg)
			if _, err := s.Get(ctx, "b:1"); err != nil {
				t.Error(err)
			}
			if _, err := s.Get(ctx, "a:1"); err == nil {
				t.Error("an image without its content is still there")
			}
			if _, err := s.Pull(ctx, "a:1", nil); err != nil {
				t.Error(err)
			}
		})
	}
}

// Killed between taking an image's last name and collecting its content: the next start collects.
func TestKilledWhileRemoving(t *testing.T) {
	srv := startRegistry(t)
	push(t, srv, "library/a:1", small("a"))
	cfg := testConfig(t, srv, nil)
	s := openStore(t, cfg)
	_, err := s.Pull(context.Background(), "a:1", nil)
	must(t, err)
	lease, err := s.removeNames(s.context(context.Background()), "a:1")
	if err != nil || lease == "" {
		t.Fatalf("lease %q, %v", lease, err)
	}
	must(t, s.Close())
	assertEmpty(t, openStore(t, cfg))
}
