package images

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/leases"
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

// kill -9 while an image is pulled, at the manifest, the config and each layer: the store opens, holds no image and no layer of it, and
// the next pull works. An image that was there before still is.
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
			if layers := layersOf(t, cfg); len(layers) != 1 {
				t.Errorf("layers are %q, want the earlier image's", layers)
			}
			_, err = s.Pull(ctx, "a:1", nil)
			must(t, err)
			must(t, s.Close())
		})
	}
}

// What a killed pull has fetched isn't fetched again: whole layers aren't asked for, and a part is gone on with. That it is what it was
// said to be is found out anew.
func TestResumesAfterKill(t *testing.T) {
	for name, spoil := range map[string]bool{"as it was": false, "spoilt on disk meanwhile": true} {
		t.Run(name, func(t *testing.T) {
			srv := startRegistry(t)
			img := push(t, srv, "library/a:1", func() (v1.Image, error) { return registry.Big(registry.Self(), 3, 3_000_000) })
			manifest, err := img.Manifest()
			must(t, err)
			last := manifest.Layers[2].Digest.Hex
			srv.AddFault(registry.Blob(last), registry.Always, registry.Stall(2_500_000))
			cfg := testConfig(t, srv, nil)
			child := exec.Command(os.Args[0])
			child.Env = append(os.Environ(), fmt.Sprintf("%s=%s|%s|a:1", crashEnv, cfg.Root, cfg.RegistriesConf))
			child.Stderr = os.Stderr
			must(t, child.Start())
			// The client writes a megabyte at a time.
			waitFor(t, func() bool {
				for _, blob := range append(manifest.Layers[:2:2], manifest.Config) {
					if _, err := os.Stat(filepath.Join(cfg.Root, "content/blobs/sha256", blob.Digest.Hex)); err != nil {
						return false
					}
				}
				return len(partsOf(t, cfg, 2<<20)) == 1
			})
			must(t, child.Process.Kill())
			<-waitChild(child)
			if spoil {
				f, err := os.OpenFile(partsOf(t, cfg, 2<<20)[0], os.O_WRONLY, 0)
				must(t, err)
				_, err = f.WriteAt([]byte("spoilt"), 1000)
				must(t, errors.Join(err, f.Close()))
			}

			var ranges []string
			srv.ClearFaults()
			srv.AddFault(func(r *registryRequest) bool {
				if registry.Blob("")(r) {
					ranges = append(ranges, path.Base(r.URL.Path)+" "+r.Header.Get("Range"))
				}
				return false
			}, registry.Always, registry.Status(http.StatusTeapot))
			s := openStore(t, cfg)
			_, err = s.Pull(t.Context(), "a:1", nil)
			if want := []string{"sha256:" + last + " bytes=2097152-"}; !slices.Equal(ranges, want) {
				t.Errorf("asked for %q, want %q", ranges, want)
			}
			if spoil {
				if err == nil || !strings.Contains(err.Error(), "unexpected commit digest") {
					t.Errorf("a spoilt part: %v", err)
				}
				_, err = s.Pull(t.Context(), "a:1", nil) // from the start
			}
			must(t, err)
			if parts := partsOf(t, cfg, 0); len(parts) > 0 || s.parked.waiting() > 0 {
				t.Errorf("left: %q, %d interrupted pulls", parts, s.parked.waiting())
			}
		})
	}
}

// layersOf are the directories of unpacked layers. A layer that is unpacked again has another.
func layersOf(t *testing.T, cfg Config) []string {
	t.Helper()
	layers, err := filepath.Glob(filepath.Join(cfg.Root, "snapshots/*/snapshots/*"))
	must(t, err)
	return layers
}

// partsOf are the files of blobs that aren't whole, of a size at least.
func partsOf(t *testing.T, cfg Config, size int64) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(cfg.Root, "content/ingest/*/data"))
	must(t, err)
	return slices.DeleteFunc(files, func(file string) bool {
		info, err := os.Stat(file)
		return err != nil || info.Size() < size
	})
}

// Killed between the end of the unpacking and the image's name: the layers, which nobody has flushed, go, though the configuration says
// that they are there; those of an image that has the same configuration stay.
func TestKilledBeforeNaming(t *testing.T) {
	srv := startRegistry(t)
	img := push(t, srv, "library/a:1", small("a"))
	idx, err := registry.IndexOf(img)
	must(t, err)
	must(t, srv.Push("library/again:1", idx))
	for name, named := range map[string]bool{"a new image": false, "an image of the same configuration": true} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t, srv, nil)
			s := openStore(t, cfg)
			var want []string
			if named {
				_, err := s.Pull(t.Context(), "a:1", nil)
				must(t, err)
				want = layersOf(t, cfg)
			}
			ref, err := parseRef("again:1")
			must(t, err)
			ctx := s.context(t.Context())
			sources, err := s.sources(ref, nil)
			must(t, err)
			desc, from, err := s.resolve(ctx, ref, sources)
			must(t, err)
			lease, err := s.leases.Create(ctx, leases.WithID("killed"), leases.WithLabel(labelKey, ref.String()))
			must(t, err)
			_, err = s.fetch(leases.WithLease(ctx, lease.ID), desc, from, newMeter(s.cfg.Clock))
			must(t, err)
			must(t, s.Close())

			s = openStore(t, cfg)
			if got := layersOf(t, cfg); !slices.Equal(got, want) {
				t.Errorf("layers are %q, want %q", got, want)
			}
			before := srv.Count("GET", "/blobs/")
			_, err = s.Pull(t.Context(), "again:1", nil)
			must(t, err)
			if got := srv.Count("GET", "/blobs/") - before; got != 0 {
				t.Errorf("%d blobs were fetched again", got)
			}
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
