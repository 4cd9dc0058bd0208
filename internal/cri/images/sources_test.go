package images

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"errand.dev/errand/test/registry"
)

// unusedAddr is a loopback address where nobody listens.
func unusedAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	must(t, l.Close())
	return l.Addr().String()
}

// withConf opens a store with a registries.conf.
func withConf(t *testing.T, srv *registry.Server, conf string) *Store {
	t.Helper()
	return openStore(t, testConfig(t, srv, func(c *Config) { writeFile(t, c.RegistriesConf, conf) }))
}

func TestMirrors(t *testing.T) {
	primary, mirror := startRegistry(t), startRegistry(t)
	dead := unusedAddr(t)
	img := push(t, primary, "team/both:1", small("both"))
	push(t, mirror, "cache/team/both:1", small("both"))
	push(t, primary, "team/primary:1", small("primary"))
	digest, err := img.Digest()
	must(t, err)
	conf := func(rest string) string {
		return fmt.Sprintf("[[registry]]\nprefix = \"example.com/team\"\nlocation = \"%s/team\"\ninsecure = true\n%s", primary.Addr(), rest)
	}
	mirrorConf := func(location, rest string) string {
		return fmt.Sprintf("[[registry.mirror]]\nlocation = %q\ninsecure = true\n%s", location, rest)
	}
	cache := mirror.Addr() + "/cache/team"

	for _, tc := range []struct {
		name, conf, ref string
		mirror, primary bool // who is asked
		code            codes.Code
	}{
		{"prefix rewriting", conf(""), "both:1", false, true, codes.OK},
		{"mirror first", conf(mirrorConf(cache, "")), "both:1", true, false, codes.OK},
		{"mirror lacks it", conf(mirrorConf(cache, "")), "primary:1", true, true, codes.OK},
		{"mirror is down", conf(mirrorConf(dead+"/cache/team", "") + mirrorConf(cache, "")), "both:1", true, false, codes.OK},
		{"nobody has it", conf(mirrorConf(cache, "")), "nosuch:1", true, true, codes.NotFound},
		{"by digest only, by tag", conf("mirror-by-digest-only = true\n" + mirrorConf(cache, "")), "both:1", false, true, codes.OK},
		{"by digest only, by digest", conf("mirror-by-digest-only = true\n" + mirrorConf(cache, "")), "both@" + digest.String(), true, false, codes.OK},
		{"tag only, by digest", conf(mirrorConf(cache, "pull-from-mirror = \"tag-only\"\n")), "both@" + digest.String(), false, true, codes.OK},
		{"blocked", conf("blocked = true\n"), "both:1", false, false, codes.PermissionDenied},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := withConf(t, primary, tc.conf)
			p, m := len(primary.Requests()), len(mirror.Requests())
			_, err := s.Service().PullImage(context.Background(), &runtimeapi.ImageSpec{Image: "example.com/team/" + tc.ref}, nil, nil)
			if status.Code(err) != tc.code {
				t.Errorf("err = %v", err)
			}
			if got := len(primary.Requests()) > p; got != tc.primary {
				t.Errorf("registry asked: %v", got)
			}
			if got := len(mirror.Requests()) > m; got != tc.mirror {
				t.Errorf("mirror asked: %v", got)
			}
			if err == nil {
				img, err := s.Get(context.Background(), "example.com/team/"+tc.ref)
				must(t, err)
				for _, name := range append(img.RepoTags, img.RepoDigests...) {
					if !strings.HasPrefix(name, "example.com/team/") {
						t.Errorf("image is named %s, after where it came from", name)
					}
				}
			} else if strings.Contains(err.Error(), "cache/team") {
				t.Errorf("error names the mirror's repository: %v", err)
			}
		})
	}
}

// A mirror that has the manifest but lost a layer: the layer comes from the registry.
func TestMirrorLacksALayer(t *testing.T) {
	primary, mirror := startRegistry(t), startRegistry(t)
	build := func() (v1.Image, error) { return registry.Big(registry.Self(), 2, 50_000) }
	img := push(t, primary, "a:1", build)
	push(t, mirror, "a:1", build)
	layers, err := img.Layers()
	must(t, err)
	lost, err := layers[1].Digest()
	must(t, err)
	mirror.AddFault(registry.Blob(lost.Hex), registry.Always, registry.Status(404))
	s := withConf(t, primary, fmt.Sprintf("[[registry]]\nlocation = %q\n[[registry.mirror]]\nlocation = %q\n", primary.Addr(), mirror.Addr()))
	_, err = s.Pull(context.Background(), primary.Addr()+"/a:1", nil)
	must(t, err)
	if got := primary.Count("GET", lost.Hex); got != 1 {
		t.Errorf("%d requests for the layer at the registry, want 1", got)
	}
}

// An edit of registries.conf counts at the next pull.
func TestConfigIsReadAnew(t *testing.T) {
	srv := startRegistry(t)
	push(t, srv, "library/a:1", small("a"))
	cfg := testConfig(t, srv, func(c *Config) {
		writeFile(t, c.RegistriesConf, "[[registry]]\nlocation = \"docker.io\"\nblocked = true\n")
	})
	s := openStore(t, cfg)
	if _, err := s.Pull(context.Background(), "a:1", nil); err == nil {
		t.Fatal("pulled from a blocked registry")
	}
	must(t, srv.WriteRegistriesConf(cfg.RegistriesConf))
	_, err := s.Pull(context.Background(), "a:1", nil)
	must(t, err)
}

func TestBrokenConfigShowsAtStart(t *testing.T) {
	srv := startRegistry(t)
	for name, conf := range map[string]string{"syntax": "[[registry", "version 1": "[registries.search]\nregistries = [\"x\"]\n"} {
		cfg := testConfig(t, srv, func(c *Config) { writeFile(t, c.RegistriesConf, conf) })
		if _, err := New(context.Background(), cfg); err == nil || !strings.Contains(err.Error(), "registries") {
			t.Errorf("%s: err = %v", name, err)
		}
	}
	cfg := testConfig(t, srv, func(c *Config) { c.RegistriesConf += ".missing" })
	if _, err := New(context.Background(), cfg); err == nil {
		t.Error("a missing file named explicitly was ignored")
	}
	for name, auth := range map[string]string{"missing": "", "broken": `{"auths": {`, "of another kind": "[auths]"} {
		path := filepath.Join(t.TempDir(), "auth.json")
		if auth != "" {
			writeFile(t, path, auth)
		}
		cfg := testConfig(t, srv, func(c *Config) { c.AuthFile = path })
		if _, err := New(context.Background(), cfg); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("credentials that are %s: err = %v", name, err)
		}
	}
}

// A loopback registry may speak TLS with whatever certificate.
func TestLoopbackTLS(t *testing.T) {
	srv := startRegistry(t)
	push(t, srv, "a:1", small("a"))
	tlsSrv := httptest.NewTLSServer(srv)
	defer tlsSrv.Close()
	s := newStore(t, srv)
	_, err := s.Pull(context.Background(), strings.TrimPrefix(tlsSrv.URL, "https://")+"/a:1", nil)
	must(t, err)
	must(t, s.Close())
}

func TestNamespaceProxy(t *testing.T) {
	srv := startRegistry(t)
	push(t, srv, "a:1", small("a"))
	srv.AddFault(func(r *registryRequest) bool { return r.URL.Query().Get("ns") != "example.com" }, registry.Always, registry.Status(404))
	s := withConf(t, srv, fmt.Sprintf("[[registry]]\nprefix = \"example.com\"\nlocation = %q\nnamespace-proxy = \"example.com\"\n", srv.Addr()))
	_, err := s.Pull(context.Background(), "example.com/a:1", nil)
	must(t, err)
}

// A registry that certificates are configured for gets the client's.
func TestClientCertificate(t *testing.T) {
	srv := startRegistry(t)
	push(t, srv, "a:1", small("a"))
	tlsSrv := httptest.NewUnstartedServer(srv)
	tlsSrv.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	tlsSrv.StartTLS()
	defer tlsSrv.Close()
	host := strings.TrimPrefix(tlsSrv.URL, "https://")
	certs := t.TempDir()
	must(t, os.Mkdir(filepath.Join(certs, host), 0o755))
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	keyDER, err := x509.MarshalECPrivateKey(key)
	must(t, err)
	for file, block := range map[string]*pem.Block{"client.cert": {Type: "CERTIFICATE", Bytes: cert}, "client.key": {Type: "EC PRIVATE KEY", Bytes: keyDER}} {
		writeFile(t, filepath.Join(certs, host, file), string(pem.EncodeToMemory(block)))
	}
	for dir, ok := range map[string]bool{certs: true, t.TempDir(): false} {
		s := openStore(t, testConfig(t, srv, func(c *Config) { c.CertDirs = []string{dir} }))
		_, err = s.Pull(context.Background(), host+"/a:1", nil)
		if (err == nil) != ok {
			t.Errorf("err = %v", err)
		}
		must(t, s.Close())
	}
}

// Of a registry that doesn't answer, the pull tells after one wait, not after five.
func TestUnreachableIsToldAtOnce(t *testing.T) {
	srv := startRegistry(t)
	s := newStore(t, srv)
	dials := 0
	s.clients.clients[clientKey{"example.com", false}] = &http.Client{Transport: stallTransport{
		clock: s.cfg.Clock, limit: time.Minute,
		base: roundTripFunc(func(*http.Request) (*http.Response, error) {
			dials++
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.ErrDeadlineExceeded}
		}),
	}}
	_, err := s.Pull(context.Background(), "example.com/a:1", nil)
	if err == nil || !strings.Contains(err.Error(), `failed to do request: Head "https://example.com/v2/a/manifests/1": dial tcp: i/o timeout`) {
		t.Errorf("err = %v", err)
	}
	if dials != 1 {
		t.Errorf("%d dials", dials)
	}
	if !resumable(err) {
		t.Error("what a pull has fetched is thrown away when the network goes")
	}
}

type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
