package images

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"errand.dev/errand/test/registry"
)

const (
	accept  = `[{"type": "insecureAcceptAnything"}]`
	refuse  = `[{"type": "reject"}]`
	signed  = `[{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/key"}]`
	cosign  = `[{"type": "sigstoreSigned", "keyPath": "/key"}]`
	either  = `[{"type": "insecureAcceptAnything"}, {"type": "reject"}]`
	twofold = `[{"type": "insecureAcceptAnything"}, {"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/key"}]`
)

// Which scope counts for an image, and what comes of its requirements.
func TestPolicyScopes(t *testing.T) {
	const digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	for name, tc := range map[string]struct {
		policy, image string
		want          string // of the refusal; "" for none
	}{
		"the default":                    {`{"default": ` + accept + `}`, "a:1", ""},
		"the default rejects":            {`{"default": ` + refuse + `}`, "a:1", "policy.json rejects docker.io/library/a:1 (default)"},
		"one of two rejects":             {`{"default": ` + either + `}`, "a:1", "rejects"},
		"the transport":                  {`{"default": ` + refuse + `, "transports": {"docker": {"": ` + accept + `}}}`, "a:1", ""},
		"another transport":              {`{"default": ` + refuse + `, "transports": {"docker-daemon": {"": ` + accept + `}}}`, "a:1", "rejects"},
		"a host":                         {`{"default": ` + refuse + `, "transports": {"docker": {"quay.example": ` + accept + `}}}`, "quay.example/x/y:1", ""},
		"another host":                   {`{"default": ` + refuse + `, "transports": {"docker": {"quay.example": ` + accept + `}}}`, "quay.example.org/x/y:1", "rejects"},
		"a host with a port":             {`{"default": ` + refuse + `, "transports": {"docker": {"quay.example:5000": ` + accept + `}}}`, "quay.example:5000/x:1", ""},
		"a domain":                       {`{"default": ` + refuse + `, "transports": {"docker": {"*.example": ` + accept + `}}}`, "a.quay.example:5000/x:1", ""},
		"a namespace":                    {`{"default": ` + accept + `, "transports": {"docker": {"quay.example/x": ` + refuse + `}}}`, "quay.example/x/y/z:1", `scope "quay.example/x"`},
		"no part of a name":              {`{"default": ` + accept + `, "transports": {"docker": {"quay.example/x": ` + refuse + `}}}`, "quay.example/xy:1", ""},
		"Docker Hub's full name":         {`{"default": ` + accept + `, "transports": {"docker": {"docker.io/library/a": ` + refuse + `}}}`, "a", `scope "docker.io/library/a"`},
		"a tag":                          {`{"default": ` + accept + `, "transports": {"docker": {"docker.io/library/a:1": ` + refuse + `}}}`, "a:1", `scope "docker.io/library/a:1"`},
		"another tag":                    {`{"default": ` + accept + `, "transports": {"docker": {"docker.io/library/a:1": ` + refuse + `}}}`, "a:2", ""},
		"a digest":                       {`{"default": ` + accept + `, "transports": {"docker": {"docker.io/library/a@` + digest + `": ` + refuse + `}}}`, "a:1@" + digest, "rejects"},
		"the narrower accepts":           {`{"default": ` + refuse + `, "transports": {"docker": {"quay.example": ` + refuse + `, "quay.example/x": ` + accept + `}}}`, "quay.example/x/y:1", ""},
		"a signature is wanted":          {`{"default": ` + accept + `, "transports": {"docker": {"quay.example": ` + signed + `}}}`, "quay.example/x:1", `policy.json wants a signature of quay.example/x:1 (transport docker, scope "quay.example": signedBy), and errand verifies none: let skopeo do so`},
		"a signature of sigstore's":      {`{"default": ` + cosign + `}`, "a:1", "(default: sigstoreSigned)"},
		"a signature is wanted, besides": {`{"default": ` + twofold + `}`, "a:1", "signedBy"},
		"a signature, elsewhere":         {`{"default": ` + accept + `, "transports": {"docker": {"quay.example": ` + signed + `}}}`, "a:1", ""},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "policy.json")
			writeFile(t, path, tc.policy)
			s := &Store{cfg: Config{SignaturePolicy: path}}
			named, err := parseRef(tc.image)
			must(t, err)
			err = s.mayPull(named)
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want %q", err, tc.want)
			}
		})
	}
}

// A policy that can't be read is an error at the start, and isn't passed over.
func TestBrokenPolicy(t *testing.T) {
	srv := startRegistry(t)
	for name, tc := range map[string]struct{ policy, want string }{
		"no JSON":                   {`{`, "unexpected end of JSON input"},
		"no default":                {`{"transports": {}}`, "default has no requirement"},
		"a scope of nothing":        {`{"default": ` + accept + `, "transports": {"docker": {"a.example": []}}}`, `transport docker, scope "a.example" has no requirement`},
		"a field that nobody knows": {`{"default": ` + accept + `, "Transports": {}}`, `unknown field "Transports"`},
		"a scope twice":             {`{"default": ` + accept + `, "transports": {"docker": {"a.example": ` + refuse + `, "a.example": ` + accept + `}}}`, "duplicate field"},
		"a type that nobody knows":  {`{"default": [{"type": "acceptNothing"}]}`, `unknown type of requirement "acceptNothing"`},
		"a reject with a key":       {`{"default": [{"type": "reject", "keyPath": "/k"}]}`, "reject takes no further settings"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t, srv, func(c *Config) { writeFile(t, c.SignaturePolicy, tc.policy) })
			s, err := New(t.Context(), cfg)
			if err == nil {
				must(t, s.Close())
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), cfg.SignaturePolicy) {
				t.Errorf("%v, want %q", err, tc.want)
			}
		})
	}
	missing := testConfig(t, srv, func(c *Config) { c.SignaturePolicy += ".missing" })
	if _, err := New(t.Context(), missing); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file named explicitly: %v", err)
	}
}

// What the policy doesn't let in isn't asked for, nor taken from an archive; an edit counts at once, and for the image's own name, not a
// mirror's. Without a file named, it is found as podman finds it.
func TestPolicyIsObeyed(t *testing.T) {
	srv := startRegistry(t)
	push(t, srv, "library/a:1", small("a"))
	for name, explicit := range map[string]bool{"named": true, "the environment's": false} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t, srv, nil)
			path := cfg.SignaturePolicy
			if !explicit {
				cfg.SignaturePolicy = ""
				t.Setenv("CONTAINERS_POLICY_JSON", path)
			}
			writeFile(t, path, `{"default": `+refuse+`, "transports": {"docker": {"`+srv.Addr()+`": `+accept+`}}}`)
			s := openStore(t, cfg)
			before := len(srv.Requests())
			_, err := s.Service().PullImage(context.Background(), &runtimeapi.ImageSpec{Image: "a:1"}, nil, nil)
			want := "SignatureValidationFailed: " + path + " rejects docker.io/library/a:1 (default)"
			if status.Code(err) != codes.Unknown || status.Convert(err).Message() != want {
				t.Errorf("%v, want %s", err, want)
			}
			if got := srv.Requests()[before:]; len(got) > 0 {
				t.Errorf("the registry was asked %q", got)
			}
			img, err := registry.Small(registry.Self(), "loaded")
			must(t, err)
			archive := dockerArchive(t, img, "loaded:1")
			if _, err := s.Load(t.Context(), bytes.NewReader(archive), nil); err == nil || !strings.Contains(err.Error(), "rejects images in archives") {
				t.Errorf("an archive: %v", err)
			}
			writeFile(t, path, `{"default": `+refuse+`, "transports": {"docker": {"docker.io/library": `+accept+`}, "docker-archive": {"": `+accept+`}, "oci-archive": {"": `+accept+`}}}`)
			_, err = s.Pull(t.Context(), "a:1", nil)
			must(t, err)
			_, err = s.Load(t.Context(), bytes.NewReader(archive), nil)
			must(t, err)
			if _, err := s.Pull(t.Context(), srv.Addr()+"/library/a:1", nil); err == nil {
				t.Error("an image of a registry that the policy rejects was pulled")
			}
		})
	}
}
