package images

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"errand.dev/errand/test/registry"
)

func TestMain(m *testing.M) {
	if spec := os.Getenv(crashEnv); spec != "" {
		fmt.Fprintln(os.Stderr, pullForever(spec))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// startRegistry starts a registry that ends with the test.
func startRegistry(t testing.TB) *registry.Server {
	t.Helper()
	srv, err := registry.Start(registry.Options{})
	must(t, err)
	t.Cleanup(func() { must(t, srv.Close()) })
	return srv
}

// testConfig is a configuration that needs no root and reads none of the machine's files. edit may be nil.
func testConfig(t testing.TB, srv *registry.Server, edit func(*Config)) Config {
	t.Helper()
	dir := t.TempDir()
	cfg := Config{
		Root:            filepath.Join(dir, "store"),
		RegistriesConf:  filepath.Join(dir, "registries.conf"),
		AuthFile:        filepath.Join(dir, "auth.json"),
		SignaturePolicy: filepath.Join(dir, "policy.json"),
		CertDirs:        []string{},
		Snapshotter:     SnapshotterOverlay,
		StallTimeout:    10 * time.Second,
		retryDelay:      time.Millisecond,
	}
	writeFile(t, cfg.AuthFile, `{"auths": {}}`)
	writeFile(t, cfg.SignaturePolicy, `{"default": [{"type": "insecureAcceptAnything"}]}`)
	must(t, srv.WriteRegistriesConf(cfg.RegistriesConf))
	if edit != nil {
		edit(&cfg)
	}
	return cfg
}

// openStore opens a store that closes with the test, unless the test closes it first.
func openStore(t testing.TB, cfg Config) *Store {
	t.Helper()
	s, err := New(context.Background(), cfg)
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

// newStore opens a store that pulls docker.io's images from srv.
func newStore(t testing.TB, srv *registry.Server) *Store {
	t.Helper()
	return openStore(t, testConfig(t, srv, nil))
}

// push serves an image made by build as ref.
func push[I registry.Image](t testing.TB, srv *registry.Server, ref string, build func() (I, error)) I {
	t.Helper()
	img, err := build()
	must(t, err)
	must(t, srv.Push(ref, img))
	return img
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// writeFile writes a configuration file of a test.
func writeFile(t testing.TB, path, text string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(text), 0o600))
}

// assertEmpty fails unless the store holds no image, blob, partial download, snapshot or lease.
func assertEmpty(t testing.TB, s *Store) {
	t.Helper()
	ctx := s.context(context.Background())
	if imgs := s.List(ctx); len(imgs) > 0 {
		t.Errorf("images left: %v", imgs)
	}
	leases, err := s.leases.List(ctx)
	must(t, err)
	if len(leases) > 0 {
		t.Errorf("leases left: %v", leases)
	}
	for _, pattern := range []string{"content/blobs/*/*", "content/ingest/*", "snapshots/*/snapshots/*"} {
		left, err := filepath.Glob(filepath.Join(s.cfg.Root, pattern))
		must(t, err)
		if len(left) > 0 {
			t.Errorf("files left: %v", left)
		}
	}
}
