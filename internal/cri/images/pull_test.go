package images

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	clocktesting "k8s.io/utils/clock/testing"

	"errand.dev/errand/test/registry"
)

func small(text string) func() (v1.Image, error) {
	return func() (v1.Image, error) { return registry.Small(registry.Self(), text) }
}

func TestPull(t *testing.T) {
	srv := startRegistry(t)
	idx := push(t, srv, "library/busybox:latest", func() (v1.ImageIndex, error) { return registry.Busybox(registry.Self()) })
	digest, err := idx.Digest()
	must(t, err)
	s := newStore(t, srv)
	ctx := context.Background()

	img, err := s.Pull(ctx, "busybox", nil)
	must(t, err)
	want := []string{"docker.io/library/busybox:latest"}
	if diff := cmp.Diff(want, img.RepoTags); diff != "" {
		t.Errorf("tags (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"docker.io/library/busybox@" + digest.String()}, img.RepoDigests); diff != "" {
		t.Errorf("digests (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"sh"}, img.Config.Cmd); diff != "" {
		t.Errorf("command (-want +got):\n%s", diff)
	}
	if img.Size < 100_000 || img.Size > 10_000_000 {
		t.Errorf("size = %d", img.Size)
	}
	for _, ref := range []string{"busybox", "docker.io/busybox", "library/busybox:latest", "index.docker.io/library/busybox", img.ID, img.ID[7:], img.ID[7:19], img.RepoDigests[0]} {
		got, err := s.Get(ctx, ref)
		if err != nil || got.ID != img.ID {
			t.Errorf("Get(%q) = %s, %v", ref, got.ID, err)
		}
	}

	// Again: nothing is new, so nothing but one question to the registry.
	before := len(srv.Requests())
	again, err := s.Pull(ctx, "busybox:latest", nil)
	must(t, err)
	if diff := cmp.Diff(img.names, again.names); diff != "" || again.ID != img.ID {
		t.Errorf("second pull differs: %s", diff)
	}
	if got := srv.Requests()[before:]; len(got) != 1 || !strings.HasPrefix(got[0], "HEAD ") {
		t.Errorf("second pull asked %v", got)
	}
}

func TestPullSurvivesReopening(t *testing.T) {
	srv := startRegistry(t)
	push(t, srv, "library/a:1", small("a"))
	cfg := testConfig(t, srv, nil)
	s := openStore(t, cfg)
	ctx := context.Background()
	img, err := s.Pull(ctx, "a:1", nil)
	must(t, err)
	must(t, s.Close())

	s = openStore(t, cfg)
	got, err := s.Get(ctx, "a:1")
	must(t, err)
	if diff := cmp.Diff(img.names, got.names); diff != "" || got.ID != img.ID || got.Size != img.Size || got.ChainID != img.ChainID {
		t.Errorf("image changed: %+v to %+v", img, got)
	}
}

func TestPullByDigest(t *testing.T) {
	srv := startRegistry(t)
	img := push(t, srv, "library/a:1", small("a"))
	digest, err := img.Digest()
	must(t, err)
	s := newStore(t, srv)
	for _, ref := range []string{"a@" + digest.String(), "a:1@" + digest.String()} {
		got, err := s.Pull(context.Background(), ref, nil)
		must(t, err)
		if len(got.RepoTags) != 0 || len(got.RepoDigests) != 1 {
			t.Errorf("%s: tags %v, digests %v", ref, got.RepoTags, got.RepoDigests)
		}
	}
}

func TestMovedTag(t *testing.T) {
	srv := startRegistry(t)
	s := newStore(t, srv)
	ctx := context.Background()
	push(t, srv, "library/a:1", small("old"))
	old, err := s.Pull(ctx, "a:1", nil)
	must(t, err)
	push(t, srv, "library/a:1", small("new"))
	fresh, err := s.Pull(ctx, "a:1", nil)
	must(t, err)
	if old.ID == fresh.ID {
		t.Fatal("the new image was not pulled")
	}
	old, err = s.Get(ctx, old.ID)
	must(t, err)
	if len(old.RepoTags) != 0 || len(old.RepoDigests) != 1 {
		t.Errorf("old image has tags %v, digests %v", old.RepoTags, old.RepoDigests)
	}
}

func TestPullErrors(t *testing.T) {
	srv := startRegistry(t)
	self := registry.Self()
	push(t, srv, "library/elsewhere:1", func() (v1.ImageIndex, error) { return registry.WrongArch(self) })
	for _, name := range []string{"corrupt", "corrupt-manifest", "denied", "broken", "gone"} {
		push(t, srv, "library/"+name+":1", small(name))
	}
	repo := func(name string, match func(*registryRequest) bool) func(*registryRequest) bool {
		return func(r *registryRequest) bool { return strings.Contains(r.URL.Path, "/"+name+"/") && match(r) }
	}
	srv.AddFault(repo("corrupt", registry.Blob("")), registry.Always, registry.Corrupt(20))
	srv.AddFault(repo("corrupt-manifest", func(r *registryRequest) bool { return registry.Manifest(r) && r.Method == "GET" }), registry.Always, registry.Corrupt(20))
	srv.AddFault(repo("denied", registry.Any), registry.Always, registry.BasicAuth("u", "p"))
	srv.AddFault(repo("broken", registry.Any), registry.Always, registry.Status(500))
	srv.AddFault(repo("gone", registry.Blob("")), registry.Always, registry.Status(404))
	s := newStore(t, srv)

	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	must(t, nobody.Close())
	refused := nobody.Addr().String()

	for _, tc := range []struct {
		ref  string
		code codes.Code
		want string // part of the message
	}{
		{"nosuch", codes.NotFound, `failed to pull and unpack image "docker.io/library/nosuch:latest": failed to resolve image: docker.io/library/nosuch:latest: not found`},
		{refused + "/a:1", codes.Unknown, fmt.Sprintf(`failed to pull and unpack image "%[1]s/a:1": failed to resolve image: failed to do request: Head "https://%[1]s/v2/a/manifests/1": dial tcp %[1]s: connect: connection refused`, refused)},
		{"elsewhere:1", codes.NotFound, `failed to pull and unpack image "docker.io/library/elsewhere:1": no match for platform in manifest: not found`},
		{"corrupt:1", codes.FailedPrecondition, "unexpected commit digest sha256:"},
		{"corrupt-manifest:1", codes.FailedPrecondition, "unexpected commit digest sha256:"},
		{"denied:1", codes.Unknown, "failed to resolve image: pull access denied, repository does not exist or may require authorization: "},
		{"broken:1", codes.Unknown, "500 Internal Server Error"},
		{"gone:1", codes.NotFound, "could not fetch content descriptor sha256:"},
		{"UPPER", codes.InvalidArgument, `failed to parse image reference "UPPER"`},
		{"", codes.InvalidArgument, "failed to parse image reference"},
	} {
		t.Run(tc.ref, func(t *testing.T) {
			id, err := s.Service().PullImage(context.Background(), &runtimeapi.ImageSpec{Image: tc.ref}, nil, nil)
			if err == nil {
				t.Fatalf("pulled %s", id)
			}
			if got := status.Code(err); got != tc.code {
				t.Errorf("code = %s, want %s", got, tc.code)
			}
			if got := status.Convert(err).Message(); !strings.Contains(got, tc.want) {
				t.Errorf("message:\n got %s\nwant %s", got, tc.want)
			}
			assertEmpty(t, s)
		})
	}
}

// A registry that once served a corrupt layer serves it right the next time: the bad bytes must not be remembered.
func TestCorruptThenRight(t *testing.T) {
	srv := startRegistry(t)
	push(t, srv, "library/a:1", small("a"))
	srv.AddFault(registry.Blob(""), 2, registry.Corrupt(3)) // config and layer
	s := newStore(t, srv)
	if _, err := s.Pull(context.Background(), "a:1", nil); err == nil {
		t.Fatal("a corrupt image was pulled")
	}
	srv.ClearFaults()
	_, err := s.Pull(context.Background(), "a:1", nil)
	must(t, err)
}

func TestParallelPullsAreOne(t *testing.T) {
	srv := startRegistry(t)
	push(t, srv, "library/a:1", func() (v1.Image, error) { return registry.Big(registry.Self(), 4, 100_000) })
	release := make(chan struct{})
	srv.AddFault(registry.Manifest, 1, registry.Hold(release))
	s := newStore(t, srv)
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if _, err := s.Pull(context.Background(), "a:1", nil); err != nil {
				t.Error(err)
			}
		})
	}
	waitFor(t, func() bool { s.flights.mu.Lock(); defer s.flights.mu.Unlock(); return waiters(s.flights) == 10 })
	close(release)
	wg.Wait()
	if got := srv.Count("GET", "/blobs/"); got != 5 {
		t.Errorf("%d blobs fetched, want 5", got)
	}
	if got := srv.Count("HEAD", "/manifests/"); got != 1 {
		t.Errorf("asked %d times, want once", got)
	}
}

// Two images that share a layer, pulled at once: the layer is fetched once.
func TestSharedLayerIsFetchedOnce(t *testing.T) {
	srv := startRegistry(t)
	self := registry.Self()
	base, err := registry.Layer(self, registry.File{Name: "base", Body: registry.Random(1, 200_000)})
	must(t, err)
	for _, name := range []string{"a", "b", "c"} {
		push(t, srv, "library/"+name+":1", func() (v1.Image, error) {
			top, err := registry.Layer(self, registry.File{Name: name})
			must(t, err)
			return registry.ImageOf("", nil, base, top)
		})
	}
	digest, err := base.Digest()
	must(t, err)
	srv.AddFault(registry.Blob(digest.Hex), registry.Always, registry.Slow(1_000_000))
	s := newStore(t, srv)
	var wg sync.WaitGroup
	for _, name := range []string{"a", "b", "c"} {
		wg.Go(func() {
			if _, err := s.Pull(context.Background(), name+":1", nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := srv.Count("GET", digest.Hex); got != 1 {
		t.Errorf("the layer was fetched %d times", got)
	}
}

func TestResumesAfterReset(t *testing.T) {
	srv := startRegistry(t)
	img := push(t, srv, "library/a:1", func() (v1.Image, error) { return registry.Big(registry.Self(), 1, 1_000_000) })
	layers, err := img.Layers()
	must(t, err)
	digest, err := layers[0].Digest()
	must(t, err)
	srv.AddFault(registry.Blob(digest.Hex), 3, registry.Reset(200_000))
	var ranges []string
	var mu sync.Mutex
	srv.AddFault(func(r *registryRequest) bool {
		if registry.Blob(digest.Hex)(r) {
			mu.Lock()
			defer mu.Unlock()
			ranges = append(ranges, r.Header.Get("Range"))
		}
		return false
	}, registry.Always, registry.Status(500))
	s := newStore(t, srv)
	_, err = s.Pull(context.Background(), "a:1", nil)
	must(t, err)
	if got := srv.Count("GET", digest.Hex); got != 4 {
		t.Errorf("%d requests for the layer, want 4", got)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(ranges) != 1 || ranges[0] == "" || ranges[0] == "bytes=0-" {
		t.Errorf("the last request was for %q: not resumed", ranges)
	}
}

func TestResolveRetriesAfterReset(t *testing.T) {
	srv := startRegistry(t)
	push(t, srv, "library/a:1", small("a"))
	srv.AddFault(registry.Manifest, 2, registry.Status(503))
	s := newStore(t, srv)
	_, err := s.Pull(context.Background(), "a:1", nil)
	must(t, err)
}

func TestStall(t *testing.T) {
	srv := startRegistry(t)
	push(t, srv, "library/a:1", func() (v1.Image, error) { return registry.Big(registry.Self(), 1, 500_000) })
	srv.AddFault(registry.Blob(""), registry.Always, registry.Stall(100))
	s := openStore(t, testConfig(t, srv, func(c *Config) { c.StallTimeout = 50 * time.Millisecond }))
	_, err := s.Pull(context.Background(), "a:1", nil)
	if err == nil || !strings.Contains(err.Error(), "no data received for 50ms") {
		t.Fatalf("err = %v", err)
	}
	// The network recovers: what came is not fetched again.
	srv.ClearFaults()
	_, err = s.Pull(context.Background(), "a:1", nil)
	must(t, err)
}

// A connection that is slow but alive isn't given up: the timeout is on silence, not on the whole.
func TestSlowIsNotStalled(t *testing.T) {
	srv := startRegistry(t)
	push(t, srv, "library/a:1", func() (v1.Image, error) { return registry.Big(registry.Self(), 1, 300_000) })
	srv.AddFault(registry.Blob(""), registry.Always, registry.Slow(400_000))
	s := openStore(t, testConfig(t, srv, func(c *Config) { c.StallTimeout = 500 * time.Millisecond }))
	start := time.Now()
	_, err := s.Pull(context.Background(), "a:1", nil)
	must(t, err)
	if took := time.Since(start); took < 500*time.Millisecond {
		t.Fatalf("took %s: the test proves nothing", took)
	}
}

func TestCancel(t *testing.T) {
	srv := startRegistry(t)
	push(t, srv, "library/a:1", func() (v1.Image, error) { return registry.Big(registry.Self(), 1, 500_000) })
	srv.AddFault(registry.Blob(""), registry.Always, registry.Stall(1000))
	s := newStore(t, srv)
	ctx, cancel := context.WithCancel(context.Background())
	other, cancelOther := context.WithCancel(context.Background())
	defer cancelOther()
	results := make(chan error, 2)
	for _, ctx := range []context.Context{ctx, other} {
		go func() {
			_, err := s.Service().PullImage(ctx, &runtimeapi.ImageSpec{Image: "a:1"}, nil, nil)
			results <- err
		}()
	}
	waitFor(t, func() bool { return srv.Count("GET", "/blobs/") > 0 })
	waitFor(t, func() bool { s.flights.mu.Lock(); defer s.flights.mu.Unlock(); return waiters(s.flights) == 2 })
	cancel()
	if err := <-results; status.Code(err) != codes.Canceled {
		t.Fatalf("err = %v", err)
	}
	// The other one still wants the image: the pull goes on.
	s.flights.mu.Lock()
	n := len(s.flights.flights)
	s.flights.mu.Unlock()
	if n != 1 {
		t.Errorf("%d pulls under way, want 1", n)
	}
	cancelOther()
	if err := <-results; status.Code(err) != codes.Canceled {
		t.Fatalf("err = %v", err)
	}
	srv.ClearFaults()
	_, err := s.Pull(context.Background(), "a:1", nil)
	must(t, err)
}

func TestCloseEndsPulls(t *testing.T) {
	srv := startRegistry(t)
	push(t, srv, "library/a:1", small("a"))
	srv.AddFault(registry.Blob(""), registry.Always, registry.Stall(10))
	cfg := testConfig(t, srv, nil)
	s, err := New(context.Background(), cfg)
	must(t, err)
	result := make(chan error, 1)
	go func() {
		_, err := s.Pull(context.Background(), "a:1", nil)
		result <- err
	}()
	waitFor(t, func() bool { return srv.Count("GET", "/blobs/") > 0 })
	must(t, s.Close())
	if err := <-result; err == nil {
		t.Fatal("pulled")
	}
	// What the pull left is the next start's to go on with, for a while.
	clk := clocktesting.NewFakeClock(time.Now())
	cfg.Clock = clk
	s = openStore(t, cfg)
	if s.parked.waiting() != 1 {
		t.Errorf("%d pulls can be gone on with, want 1", s.parked.waiting())
	}
	clk.Step(parkedLife)
	waitFor(t, func() bool { return s.parked.waiting() == 0 })
	s.parked.expired.Wait()
	assertEmpty(t, s)
}

func TestAuth(t *testing.T) {
	basic := base64.StdEncoding.EncodeToString([]byte("me:secret"))
	for _, scheme := range []string{"basic", "token"} {
		srv := startRegistry(t)
		push(t, srv, "library/private:1", small("private"))
		if scheme == "basic" {
			srv.AddFault(registry.Any, registry.Always, registry.BasicAuth("me", "secret"))
		} else {
			srv.AddFault(registry.Any, registry.Always, srv.TokenAuth("me", "secret"))
		}
		image := &runtimeapi.ImageSpec{Image: srv.Addr() + "/library/private:1"}
		authFile := fmt.Sprintf(`{"auths": {%q: {"auth": %q}}}`, srv.Addr(), basic)
		for _, tc := range []struct {
			name     string
			authFile string
			auth     *runtimeapi.AuthConfig
			ok       bool
		}{
			{"none", "", nil, false},
			{"auth file", authFile, nil, true},
			{"pull secret", "", &runtimeapi.AuthConfig{Username: "me", Password: "secret"}, true},
			{"encoded pull secret", "", &runtimeapi.AuthConfig{Auth: basic}, true},
			{"pull secret for this server", "", &runtimeapi.AuthConfig{Username: "me", Password: "secret", ServerAddress: "https://" + srv.Addr() + "/v1/"}, true},
			{"pull secret for another server", "", &runtimeapi.AuthConfig{Username: "me", Password: "secret", ServerAddress: "https://example.com"}, false},
			{"wrong pull secret", authFile, &runtimeapi.AuthConfig{Username: "me", Password: "wrong"}, false},
		} {
			t.Run(scheme+" "+tc.name, func(t *testing.T) {
				cfg := testConfig(t, srv, nil)
				if tc.authFile != "" {
					writeFile(t, cfg.AuthFile, tc.authFile)
				}
				s := openStore(t, cfg)
				_, err := s.Service().PullImage(context.Background(), image, tc.auth, nil)
				if (err == nil) != tc.ok {
					t.Errorf("err = %v", err)
				}
			})
		}
	}
}

func TestCredentialHelper(t *testing.T) {
	srv := startRegistry(t)
	push(t, srv, "library/private:1", small("private"))
	srv.AddFault(registry.Any, registry.Always, registry.BasicAuth("helped", "secret"))
	cfg := testConfig(t, srv, nil)
	bin := t.TempDir()
	helper := filepath.Join(bin, "docker-credential-errandtest")
	must(t, os.WriteFile(helper, []byte("#!/bin/sh\nread server\necho '{\"ServerURL\":\"'$server'\",\"Username\":\"helped\",\"Secret\":\"secret\"}'\n"), 0o755))
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	writeFile(t, cfg.AuthFile, fmt.Sprintf(`{"credHelpers": {%q: "errandtest"}}`, srv.Addr()))
	_, err := openStore(t, cfg).Pull(context.Background(), "private:1", nil)
	must(t, err)
}

func TestRegistryToken(t *testing.T) {
	srv := startRegistry(t)
	push(t, srv, "library/private:1", small("private"))
	srv.AddFault(registry.Any, registry.Always, srv.TokenAuth("me", "secret"))
	s := newStore(t, srv)
	_, err := s.Pull(context.Background(), srv.Addr()+"/library/private:1", &runtimeapi.AuthConfig{RegistryToken: "test-token"})
	must(t, err)
	_, err = s.Pull(context.Background(), srv.Addr()+"/library/private:1", &runtimeapi.AuthConfig{RegistryToken: "stale"})
	if err == nil {
		t.Error("a stale token was taken")
	}
}

// Of an index, this machine's image is fetched and nothing of the others'.
func TestIndexIsChosenFrom(t *testing.T) {
	srv := startRegistry(t)
	self := registry.Self()
	var imgs []v1.Image
	for _, arch := range []string{"s390x", "", "riscv64"} {
		layer, err := registry.Layer(self, registry.File{Name: "arch", Body: []byte(arch)})
		must(t, err)
		img, err := registry.ImageOf(arch, nil, layer)
		must(t, err)
		imgs = append(imgs, img)
	}
	idx := push(t, srv, "library/many:1", func() (v1.ImageIndex, error) { return registry.IndexOf(imgs...) })
	s := newStore(t, srv)
	img, err := s.Pull(t.Context(), "many:1", nil)
	must(t, err)
	want, err := imgs[1].ConfigName()
	must(t, err)
	digest, err := idx.Digest()
	must(t, err)
	if img.ID != want.String() || !slices.Equal(img.RepoDigests, []string{"docker.io/library/many@" + digest.String()}) {
		t.Errorf("image %s of %q, want %s of the index", img.ID, img.RepoDigests, want)
	}
	if manifests, blobs := srv.Count("GET", "/manifests/"), srv.Count("GET", "/blobs/"); manifests != 2 || blobs != 2 {
		t.Errorf("%d manifests and %d blobs were fetched, want the index, one manifest, its configuration and layer", manifests, blobs)
	}
}

// An image without layers, and one of zstd layers.
func TestUnusualImages(t *testing.T) {
	srv := startRegistry(t)
	self := registry.Self()
	push(t, srv, "library/empty:1", func() (v1.Image, error) { return registry.ImageOf("", nil) })
	push(t, srv, "library/zstd:1", func() (v1.Image, error) {
		l, err := registry.ZstdLayer(self, registry.File{Name: "z", Body: bytes.Repeat([]byte("z"), 10_000)})
		must(t, err)
		return registry.ImageOf("", nil, l)
	})
	s := newStore(t, srv)
	for _, ref := range []string{"empty:1", "zstd:1"} {
		if _, err := s.Pull(context.Background(), ref, nil); err != nil {
			t.Errorf("%s: %v", ref, err)
		}
	}
}
