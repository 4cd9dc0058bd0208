package apiserver

import (
	"context"
	"net"
	"net/http"

	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	restclient "k8s.io/client-go/rest"
	"k8s.io/kubernetes/pkg/api/legacyscheme"

	"errand.dev/errand/internal/apiserver/direct"
	"errand.dev/errand/internal/apiserver/inprocess"
)

// Ready is closed once the server answers, holds its default objects and has
// seen all that admission and authorization consult: /readyz then says ok.
func (s *Server) Ready() <-chan struct{} { return s.readiness.done }

// Addr returns the address of the first listener.
func (s *Server) Addr() net.Addr { return s.generic.SecureServingInfo.Listener.Addr() }

// AddListener serves what pods send by a further listener as what comes by the
// first, from when Run does: of each address at most 256 connections at once,
// but for ServiceAddress, which this machine's own processes come from. The
// server closes the listener; one that comes after Run has ended at once.
func (s *Server) AddListener(l net.Listener) {
	s.listeners.add(limitPerAddress(l, maxConnsPerAddress, s.cfg.serviceAddr))
}

// URL returns where clients on this machine reach the server.
func (s *Server) URL() string { return s.loopback.Host }

// Kubeconfig returns the path of the administrator's kubeconfig, which is
// written before Ready closes.
func (s *Server) Kubeconfig() string { return s.cfg.Kubeconfig }

// CA returns the certificate, as PEM, that the server's is signed by.
func (s *Server) CA() []byte { return s.certs.CA() }

// LoopbackConfig returns the configuration of a client with every right that
// speaks HTTP to this server. The caller may change the copy.
func (s *Server) LoopbackConfig() *restclient.Config {
	return restclient.CopyConfig(s.loopback)
}

// DirectConfig is LoopbackConfig without a connection: requests go straight to
// the server's handlers. Exec, attach and port-forward don't work with it.
func (s *Server) DirectConfig() *restclient.Config {
	config := s.LoopbackConfig()
	config.TLSClientConfig = restclient.TLSClientConfig{}
	config.Transport = direct.NewTransport(s.built)
	return config
}

// CheckSpace returns an error that says what to do if the store refuses writes
// for want of space.
func (s *Server) CheckSpace(ctx context.Context) error { return s.store.space(ctx) }

// Client returns the client that components in this process should use.
func (s *Server) Client() kubernetes.Interface { return s.client }

// ClientAs returns a client that admission's plugins, policies and webhooks take
// for user; nil means the server itself, an administrator. The component that
// acts for others must not pass for one: a policy that lets administrators make
// privileged pods would let everybody who may create Jobs. It is never refused
// by authorization, and what it does by HTTP (see package inprocess) it does as
// the server. At most maxWrites of its writes run at once; 0 is no limit.
func (s *Server) ClientAs(u user.Info, maxWrites int) (kubernetes.Interface, error) {
	return inprocess.New(inprocess.Config{
		Storage:     s.Storage,
		Scheme:      legacyscheme.Scheme,
		Fallback:    s.remote,
		Admission:   s.chain,
		Equivalents: s.generic.EquivalentResourceRegistry,
		User:        u,
		MaxWrites:   maxWrites,
	})
}

// Informers returns a factory over Client that admission and authorization use
// too, so that each kind is held once. Managed fields are left out. Those who
// ask for further informers start the factory again; Run starts it first.
func (s *Server) Informers() informers.SharedInformerFactory { return s.factory }

// Handler serves requests without their having come through the listener. It
// authenticates them all the same.
func (s *Server) Handler() http.Handler { return s.generic.Handler }

// Admission returns the chain that every write passes.
func (s *Server) Admission() admission.Interface { return s.chain }

// Storage returns the registry of a resource, or of one of its subresources.
func (s *Server) Storage(resource schema.GroupVersionResource, subresource string) (rest.Storage, bool) {
	name := resource.Resource
	if subresource != "" {
		name += "/" + subresource
	}
	registry, ok := s.all[resource.GroupVersion()][name]
	return registry, ok
}

// Etcd returns the store's client, for diagnosis and tests.
func (s *Server) Etcd() *clientv3.Client { return s.store.client }
