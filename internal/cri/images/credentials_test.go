package images

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"errand.dev/errand/test/registry"
)

// authorizations are the Authorization headers that a registry was sent.
type authorizations struct {
	mu   sync.Mutex
	sent []string
}

// record notes what srv is sent from here on.
func (a *authorizations) record(srv *registry.Server) {
	srv.AddFault(func(r *registryRequest) bool {
		if header := r.Header.Get("Authorization"); header != "" {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.sent = append(a.sent, header)
		}
		return false
	}, registry.Always, registry.Status(http.StatusTeapot))
}

// users are the distinct users of basic credentials among them; anything else shows as it is.
func (a *authorizations) users() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var users []string
	for _, header := range a.sent {
		user := header
		if decoded, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(header, "Basic ")); err == nil {
			user, _, _ = strings.Cut(string(decoded), ":")
		}
		if !slices.Contains(users, user) {
			users = append(users, user)
		}
	}
	return users
}

// A pod's secret is shown to the registry that the image's name says, to no mirror and to nothing that registries.conf puts in the
// registry's place, unless it names that. The user's auth.json has credentials for each host.
func TestWhoSeesCredentials(t *testing.T) {
	const (
		askFirst = "[[registry]]\nlocation = %[1]q\n[[registry.mirror]]\nlocation = %[2]q\n"
		instead  = "[[registry]]\nprefix = %[1]q\nlocation = %[2]q\n"
	)
	secret := func(server string) *runtimeapi.AuthConfig {
		return &runtimeapi.AuthConfig{Username: "pod", Password: "secret", ServerAddress: server}
	}
	for name, tc := range map[string]struct {
		conf     string
		auth     func(primary, mirror string) *runtimeapi.AuthConfig
		authFile string // with the mirror's address
		primary  []string
		mirror   []string
		ok       bool
	}{
		"a mirror doesn't see the pod's secret": {conf: askFirst,
			auth: func(_, _ string) *runtimeapi.AuthConfig { return secret("") }, primary: []string{"pod"}, ok: true},
		"a mirror doesn't see a secret that names the registry": {conf: askFirst,
			auth: func(primary, _ string) *runtimeapi.AuthConfig { return secret(primary) }, primary: []string{"pod"}, ok: true},
		"a mirror sees a secret that names it": {conf: askFirst,
			auth: func(_, mirror string) *runtimeapi.AuthConfig { return secret(mirror) }, mirror: []string{"pod"}, ok: true},
		"a mirror sees what auth.json has for it": {conf: askFirst,
			auth:     func(_, _ string) *runtimeapi.AuthConfig { return secret("") },
			authFile: `{"auths": {%q: {"auth": "ZmlsZTpzZWNyZXQ="}}}`, mirror: []string{"file"}, ok: true},
		"what is asked instead doesn't see the pod's secret": {conf: instead,
			auth: func(_, _ string) *runtimeapi.AuthConfig { return secret("") }},
		"what is asked instead sees a secret that names it": {conf: instead,
			auth: func(_, mirror string) *runtimeapi.AuthConfig { return secret("https://" + mirror) }, mirror: []string{"pod"}, ok: true},
		"nor does a mirror see a token": {conf: askFirst,
			auth: func(_, _ string) *runtimeapi.AuthConfig { return &runtimeapi.AuthConfig{RegistryToken: "token"} }, primary: []string{"Bearer token"}},
	} {
		t.Run(name, func(t *testing.T) {
			primary, mirror := startRegistry(t), startRegistry(t)
			var atPrimary, atMirror authorizations
			for srv, seen := range map[*registry.Server]*authorizations{primary: &atPrimary, mirror: &atMirror} {
				push(t, srv, "a:1", small("a"))
				seen.record(srv)
				srv.AddFault(func(r *registryRequest) bool {
					user, _, _ := r.BasicAuth()
					return user != "file"
				}, registry.Always, registry.BasicAuth("pod", "secret"))
			}
			s := openStore(t, testConfig(t, primary, func(c *Config) {
				writeFile(t, c.RegistriesConf, fmt.Sprintf(tc.conf, primary.Addr(), mirror.Addr()))
				if tc.authFile != "" {
					writeFile(t, c.AuthFile, fmt.Sprintf(tc.authFile, mirror.Addr()))
				}
			}))
			_, err := s.Pull(t.Context(), primary.Addr()+"/a:1", tc.auth(primary.Addr(), mirror.Addr()))
			if (err == nil) != tc.ok {
				t.Errorf("err = %v", err)
			}
			if got := atPrimary.users(); !slices.Equal(got, tc.primary) {
				t.Errorf("the registry saw %q, want %q", got, tc.primary)
			}
			if got := atMirror.users(); !slices.Equal(got, tc.mirror) {
				t.Errorf("the other host saw %q, want %q", got, tc.mirror)
			}
		})
	}
}

// Blobs that a registry keeps elsewhere are fetched without credentials, though it be another port of the same machine; a redirect
// within the registry keeps them.
func TestRedirectCarriesNoCredentials(t *testing.T) {
	for name, auth := range map[string]*runtimeapi.AuthConfig{
		"password": {Username: "me", Password: "secret"},
		"token":    {RegistryToken: "test-token"},
	} {
		for _, within := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, within the registry %v", name, within), func(t *testing.T) {
				primary, storage := startRegistry(t), startRegistry(t)
				push(t, primary, "a:1", small("a"))
				push(t, storage, "a:1", small("a"))
				var atStorage authorizations
				atStorage.record(storage)
				guard := registry.BasicAuth("me", "secret")
				if name == "token" {
					guard = primary.TokenAuth("me", "secret")
				}
				host := storage.Addr()
				if within {
					host = primary.Addr()
				}
				var moved atomic.Int32
				primary.AddFault(func(r *registryRequest) bool {
					return registry.Blob("")(r) && !r.URL.Query().Has("moved")
				}, registry.Always, func(w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
					guard(w, r, func(w http.ResponseWriter, r *http.Request) {
						moved.Add(1)
						http.Redirect(w, r, "http://"+host+r.URL.Path+"?moved", http.StatusTemporaryRedirect)
					})
				})
				primary.AddFault(registry.Any, registry.Always, guard)
				s := newStore(t, primary)
				_, err := s.Pull(context.Background(), primary.Addr()+"/a:1", auth)
				must(t, err)
				if moved.Load() != 2 {
					t.Errorf("%d blobs were redirected, want the configuration and a layer", moved.Load())
				}
				if len(atStorage.sent) > 0 {
					t.Errorf("where the registry redirected to saw %q", atStorage.sent)
				}
			})
		}
	}
}
