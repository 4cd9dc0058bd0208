package images

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"go.podman.io/image/v5/pkg/tlsclientconfig"
	"k8s.io/utils/clock"
)

// httpClients keeps one HTTP client per registry, so that pulls share connections and remember that a registry speaks plain HTTP.
type httpClients struct {
	certDirs []string
	stall    time.Duration
	clock    clock.WithDelayedExecution

	mu      sync.Mutex
	clients map[clientKey]*http.Client
}

type clientKey struct {
	host     string
	insecure bool
}

func newHTTPClients(cfg Config) *httpClients {
	return &httpClients{certDirs: cfg.CertDirs, stall: cfg.StallTimeout, clock: cfg.Clock, clients: map[clientKey]*http.Client{}}
}

// get returns the client for host. Loopback registries and those that registries.conf calls insecure may have any certificate, or
// speak plain HTTP, as with containerd and podman.
func (c *httpClients) get(host string, insecure bool) (*http.Client, error) {
	insecure = insecure || docker.IsLocalhost(host)
	key := clientKey{host, insecure}
	c.mu.Lock()
	defer c.mu.Unlock()
	if client, ok := c.clients[key]; ok {
		return client, nil
	}
	conf := &tls.Config{InsecureSkipVerify: insecure}
	for _, dir := range c.certDirs {
		dir = filepath.Join(dir, host)
		if _, err := os.Stat(dir); err != nil {
			continue
		}
		if err := tlsclientconfig.SetupCertificates(dir, conf); err != nil {
			return nil, fmt.Errorf("load the certificates for registry %s: %w", host, err)
		}
		break
	}
	base := docker.DefaultHTTPTransport(conf)
	base.ResponseHeaderTimeout = min(base.ResponseHeaderTimeout, c.stall)
	base.MaxIdleConnsPerHost = base.MaxIdleConns
	var rt http.RoundTripper = stallTransport{base: base, clock: c.clock, limit: c.stall}
	if insecure {
		rt = docker.NewHTTPFallback(rt)
	} else {
		rt = secureTransport{rt}
	}
	client := &http.Client{Transport: closeIdler{rt, base}, CheckRedirect: leaveCredentials}
	c.clients[key] = client
	return client, nil
}

func (c *httpClients) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, client := range c.clients {
		client.CloseIdleConnections()
	}
}

// maxRedirects is how often in a row a registry may send a request elsewhere, as with net/http.
const maxRedirects = 10

// leaveCredentials implements http.Client.CheckRedirect: what a registry redirects to, a store of blobs mostly, gets no credentials
// unless it is the registry itself. net/http would send them to any port of the same host, and to its subdomains.
func leaveCredentials(req *http.Request, via []*http.Request) error {
	if len(via) >= maxRedirects {
		return fmt.Errorf("the registry %s redirected %d times in a row", via[0].URL.Host, len(via))
	}
	if req.URL.Host != via[0].URL.Host {
		req.Header.Del("Authorization")
	}
	return nil
}

// secureTransport sends nothing in the clear. The first request never is; a registry may redirect another.
type secureTransport struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (t secureTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" {
		return nil, fmt.Errorf("the registry redirects to %s://%s, which isn't encrypted: let registries.conf call the registry insecure if that is wanted",
			req.URL.Scheme, req.URL.Host)
	}
	return t.RoundTripper.RoundTrip(req)
}

// closeIdler lets http.Client find the transport whose connections it can close.
type closeIdler struct {
	http.RoundTripper
	base *http.Transport
}

func (c closeIdler) CloseIdleConnections() { c.base.CloseIdleConnections() }

// stallTransport gives up on a response body over which nothing has come for limit. Time in which nobody reads doesn't count.
type stallTransport struct {
	base  http.RoundTripper
	clock clock.WithDelayedExecution
	limit time.Duration
}

// RoundTrip implements http.RoundTripper.
func (t stallTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	resp, err := t.base.RoundTrip(req.WithContext(ctx))
	if err != nil {
		cancel(err)
		if netErr, ok := errors.AsType[net.Error](err); ok && netErr.Timeout() {
			err = errUnreachable{err}
		}
		return nil, err
	}
	body := &stallBody{ReadCloser: resp.Body, ctx: ctx, cancel: cancel, limit: t.limit}
	body.timer = t.clock.AfterFunc(t.limit, func() { cancel(errStalled{t.limit.String()}) })
	body.timer.Stop()
	resp.Body = body
	return resp, nil
}

type stallBody struct {
	io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  clock.Timer
	limit  time.Duration
}

// Read implements io.Reader.
func (b *stallBody) Read(p []byte) (int, error) {
	b.timer.Reset(b.limit)
	n, err := b.ReadCloser.Read(p)
	b.timer.Stop()
	if err != nil && err != io.EOF {
		if stalled, ok := errors.AsType[errStalled](context.Cause(b.ctx)); ok {
			err = stalled
		}
	}
	return n, err
}

// Close implements io.Closer.
func (b *stallBody) Close() error {
	b.timer.Stop()
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}

// namespaceTransport tells a proxy for several registries which of them is meant (registries.conf's namespace-proxy, the
// distribution specification's "ns").
type namespaceTransport struct {
	http.RoundTripper
	host, namespace string
}

// RoundTrip implements http.RoundTripper.
func (t namespaceTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Host == t.host {
		req = req.Clone(req.Context())
		query := req.URL.Query()
		query.Set("ns", t.namespace)
		req.URL.RawQuery = query.Encode()
	}
	return t.RoundTripper.RoundTrip(req)
}
