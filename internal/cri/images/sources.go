package images

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	imageref "go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/pkg/sysregistriesv2"
	"go.podman.io/image/v5/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// source is one place an image may come from: a mirror of its registry, or the registry itself.
type source struct {
	// ref is the image's name there.
	ref      string
	host     string
	resolver remotes.Resolver
}

// systemContext says where the user's configuration is.
func (s *Store) systemContext() *types.SystemContext {
	sys := &types.SystemContext{SystemRegistriesConfPath: s.cfg.RegistriesConf, AuthFilePath: s.cfg.AuthFile}
	if s.cfg.RegistriesConf != "" {
		// A file named explicitly is the whole truth: the system's drop-ins don't add to it.
		sys.SystemRegistriesConfDirPath = s.cfg.RegistriesConf + ".d"
	}
	return sys
}

// sources returns where named may be pulled from, in the order of registries.conf: mirrors first. auth are the credentials that
// came with the request.
func (s *Store) sources(named reference.Named, auth *runtimeapi.AuthConfig) ([]source, error) {
	sys := s.systemContext()
	// Read anew each time, so that an edit counts at once; it is a small file.
	sysregistriesv2.InvalidateCache()
	registry, err := sysregistriesv2.FindRegistry(sys, named.Name())
	if err != nil {
		return nil, fmt.Errorf("read the registries' configuration: %w: %w", err, errdefs.ErrFailedPrecondition)
	}
	if registry == nil {
		registry = &sysregistriesv2.Registry{
			Prefix:   reference.Domain(named),
			Endpoint: sysregistriesv2.Endpoint{Location: reference.Domain(named)},
		}
	}
	if registry.Blocked {
		return nil, fmt.Errorf("registry %s is blocked in %s: %w", registry.Prefix, sysregistriesv2.ConfigurationSourceDescription(sys), errdefs.ErrPermissionDenied)
	}
	parsed, err := imageref.ParseNamed(named.String())
	if err != nil {
		return nil, err
	}
	pulls, err := registry.PullSourcesFromReference(parsed)
	if err != nil {
		return nil, fmt.Errorf("apply the registries' configuration to %s: %w", named, err)
	}
	out := make([]source, 0, len(pulls))
	for _, pull := range pulls {
		elsewhere := imageref.Domain(pull.Reference) != imageref.Domain(parsed)
		src, err := s.newSource(sys, pull, elsewhere, auth)
		if err != nil {
			return nil, err
		}
		out = append(out, src)
	}
	return out, nil
}

func (s *Store) newSource(sys *types.SystemContext, pull sysregistriesv2.PullSource, elsewhere bool, auth *runtimeapi.AuthConfig) (source, error) {
	domain := imageref.Domain(pull.Reference)
	host, err := docker.DefaultHost(domain)
	if err != nil {
		return source{}, err
	}
	client, err := s.clients.get(host, pull.Endpoint.Insecure)
	if err != nil {
		return source{}, err
	}
	if ns := pull.Endpoint.NamespaceProxy; ns != "" {
		client = &http.Client{Transport: namespaceTransport{client.Transport, host, ns}, CheckRedirect: client.CheckRedirect}
	}
	creds := &credentials{sys: sys, ref: pull.Reference, host: host, request: auth, elsewhere: elsewhere}
	endpoint := docker.RegistryHost{
		Client:       client,
		Authorizer:   creds.authorizer(client),
		Host:         host,
		Scheme:       "https",
		Path:         "/v2",
		Capabilities: docker.HostCapabilityPull | docker.HostCapabilityResolve,
		Header:       http.Header{"User-Agent": {userAgent}},
	}
	resolver := docker.NewResolver(docker.ResolverOptions{
		Hosts: func(string) ([]docker.RegistryHost, error) { return []docker.RegistryHost{endpoint}, nil },
	})
	return source{ref: pull.Reference.String(), host: domain, resolver: resolver}, nil
}

// userAgent is how errand introduces itself to registries.
const userAgent = "errand"

// checkConfig reads the configuration once, so that a mistake in it shows at the start and not with the first Pod.
func (s *Store) checkConfig() error {
	if s.cfg.RegistriesConf != "" {
		if _, err := os.Stat(s.cfg.RegistriesConf); err != nil {
			return fmt.Errorf("the registries' configuration: %w", err)
		}
	}
	if s.cfg.AuthFile != "" {
		text, err := os.ReadFile(s.cfg.AuthFile)
		if err != nil {
			return fmt.Errorf("the registries' credentials: %w", err)
		}
		var auths map[string]json.RawMessage
		if err := json.Unmarshal(text, &auths); err != nil {
			return fmt.Errorf("the registries' credentials: %s is no auth.json: %w", s.cfg.AuthFile, err)
		}
	}
	sysregistriesv2.InvalidateCache()
	if _, err := sysregistriesv2.UnqualifiedSearchRegistries(s.systemContext()); err != nil {
		return fmt.Errorf("read the registries' configuration: %w", err)
	}
	_, err := s.readPolicy()
	return err
}
