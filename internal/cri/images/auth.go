package images

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	imageref "go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/pkg/docker/config"
	"go.podman.io/image/v5/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// credentials finds what to log in to one host with: first what came with the request (a Pod's imagePullSecrets), then the user's
// auth.json and credential helpers, which are only asked once the registry has refused an anonymous request.
type credentials struct {
	sys     *types.SystemContext
	ref     imageref.Named
	host    string
	request *runtimeapi.AuthConfig
	// elsewhere is set where registries.conf has the image come from another host than its name says.
	elsewhere bool
}

// authorizer adds the credentials to requests.
func (c *credentials) authorizer(client *http.Client) docker.Authorizer {
	a := docker.NewDockerAuthorizer(
		docker.WithAuthClient(client),
		docker.WithAuthHeader(http.Header{"User-Agent": {userAgent}}),
		docker.WithAuthCreds(c.lookup),
	)
	if token := c.request.GetRegistryToken(); token != "" && c.meant() {
		return bearerAuthorizer{Authorizer: a, host: c.host, token: token}
	}
	return a
}

// lookup implements containerd's credentials function: an identity token comes without a user name.
func (c *credentials) lookup(host string) (user, secret string, err error) {
	if host != c.host {
		return "", "", nil // a redirect to elsewhere
	}
	if c.meant() {
		user, secret, err = requestCredentials(c.request)
		if err != nil || secret != "" {
			return user, secret, err
		}
	}
	found, err := config.GetCredentialsForRef(c.sys, c.ref)
	if err != nil {
		return "", "", fmt.Errorf("look up credentials for %s: %w", c.host, err)
	}
	if found.IdentityToken != "" {
		return "", found.IdentityToken, nil
	}
	return found.Username, found.Password, nil
}

// meant reports whether the request's credentials are for this host. Those that name no server are for the registry that the image's
// name says, as in containers/image: a mirror doesn't get to see them, nor what registries.conf puts in the registry's place.
func (c *credentials) meant() bool {
	if c.request == nil {
		return false
	}
	server := c.request.GetServerAddress()
	if server == "" {
		return !c.elsewhere
	}
	if !strings.Contains(server, "://") {
		server = "https://" + server
	}
	u, err := url.Parse(server)
	return err == nil && canonicalHost(u.Host) == canonicalHost(c.host)
}

// canonicalHost makes one of the names that Docker Hub goes by.
func canonicalHost(host string) string {
	switch host {
	case "docker.io", "index.docker.io", "registry-1.docker.io":
		return "docker.io"
	}
	return host
}

func requestCredentials(auth *runtimeapi.AuthConfig) (user, secret string, err error) {
	switch {
	case auth.GetUsername() != "":
		return auth.GetUsername(), auth.GetPassword(), nil
	case auth.GetIdentityToken() != "":
		return "", auth.GetIdentityToken(), nil
	case auth.GetAuth() != "":
		decoded, err := base64.StdEncoding.DecodeString(auth.GetAuth())
		if err != nil {
			return "", "", fmt.Errorf("decode auth: %w: %w", err, errdefs.ErrInvalidArgument)
		}
		user, secret, ok := strings.Cut(string(decoded), ":")
		if !ok {
			return "", "", fmt.Errorf("auth isn't user:password: %w", errdefs.ErrInvalidArgument)
		}
		return user, strings.Trim(secret, "\x00"), nil
	}
	return "", "", nil
}

// bearerAuthorizer sends a token that came with the request as it is.
type bearerAuthorizer struct {
	docker.Authorizer
	host, token string
}

// Authorize implements docker.Authorizer.
func (a bearerAuthorizer) Authorize(ctx context.Context, req *http.Request) error {
	if req.URL.Host != a.host {
		return a.Authorizer.Authorize(ctx, req)
	}
	req.Header.Set("Authorization", "Bearer "+a.token)
	return nil
}

// AddResponses implements docker.Authorizer: a token that is refused isn't tried again.
func (a bearerAuthorizer) AddResponses(_ context.Context, responses []*http.Response) error {
	last := responses[len(responses)-1]
	return fmt.Errorf("registry %s refused the registry token: %s: %w", a.host, last.Status, docker.ErrInvalidAuthorization)
}
