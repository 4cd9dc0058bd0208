package pki

import (
	"crypto/x509"
	"sync"

	"k8s.io/apiserver/pkg/server/dynamiccertificates"
)

// Serving returns the serving certificate as the API server wants it: with
// word of each renewal to those who listen.
func (s *Store) Serving() dynamiccertificates.CertKeyContentProvider { return &s.servingContent }

// Authority returns what client certificates are verified against.
func (s *Store) Authority() dynamiccertificates.CAContentProvider { return s.authority }

type servingContent struct {
	store *Store

	mu        sync.Mutex
	listeners []dynamiccertificates.Listener
}

func (c *servingContent) Name() string { return "serving certificate" }

func (c *servingContent) CurrentCertKeyContent() (cert, key []byte) {
	c.store.mu.RLock()
	defer c.store.mu.RUnlock()
	return c.store.serving.certPEM, c.store.serving.keyPEM
}

func (c *servingContent) AddListener(l dynamiccertificates.Listener) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.listeners = append(c.listeners, l)
}

func (c *servingContent) notify() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.listeners {
		l.Enqueue()
	}
}

// authority never changes: the certificate authority is kept for its life.
type authority struct {
	pem     []byte
	options x509.VerifyOptions
}

func newAuthority(ca *pair) *authority {
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	return &authority{
		pem: ca.certPEM,
		options: x509.VerifyOptions{
			Roots:     roots,
			KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		},
	}
}

func (a *authority) Name() string                              { return "certificate authority" }
func (a *authority) CurrentCABundleContent() []byte            { return a.pem }
func (a *authority) VerifyOptions() (x509.VerifyOptions, bool) { return a.options, true }
func (a *authority) AddListener(dynamiccertificates.Listener)  {}
