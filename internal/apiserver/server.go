package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	restclient "k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/capabilities"
	"k8s.io/kubernetes/pkg/routes"
	"k8s.io/kubernetes/pkg/serviceaccount"
	"k8s.io/utils/clock"

	"errand.dev/errand/internal/apiserver/etcd"
	"errand.dev/errand/internal/apiserver/pki"
	_ "errand.dev/errand/internal/apiserver/quietqueues" // no metrics of queues
	"errand.dev/errand/internal/apiserver/resourcemetrics"
	"errand.dev/errand/internal/connections"
	"errand.dev/errand/internal/sharing"
)

// informerResync is 0: informers never replay what they hold. Those who want
// to look again at something set a timer for it.
const informerResync = 0

// Server is an API server. Its methods may be called concurrently.
type Server struct {
	cfg      *completedConfig
	store    *store
	certs    *pki.Store
	options  *storageOptions
	generic  *genericapiserver.GenericAPIServer
	chain    admission.Interface
	all      registries
	services *serviceAddresses
	// kubernetes is set by Run before Ready.
	kubernetes *kubernetesService

	listeners *joinedListener
	listener  *connections.Listener // of all listeners: a stop needn't wait for clients to close theirs, which HTTP/2 gives a second
	drained   <-chan struct{}       // closed when the requests in flight have ended
	// metricsScheme has the kinds of metrics.k8s.io.
	metricsScheme *runtime.Scheme

	loopback  *restclient.Config
	client    kubernetes.Interface
	remote    kubernetes.Interface // through the handlers, as an administrator
	factory   informers.SharedInformerFactory
	readiness *readiness
	buildDone chan struct{} // closed once generic and all are set
}

// New makes a server: it opens the store, the certificates and the listener,
// and builds every registry. Nothing is served before Run. On failure
// everything opened is closed. A Server that is made must be run, even if with
// a context that is done, for what it holds to be closed.
func New(ctx context.Context, cfg Config) (_ *Server, err error) {
	done, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	if err := setFeatures(); err != nil {
		return nil, err
	}
	// Pods may be privileged; who may make such is a matter of RBAC and PodSecurity.
	capabilities.Setup(true, 0)

	s := &Server{cfg: done, readiness: newReadiness(), buildDone: make(chan struct{})}
	listener, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	s.listener = connections.Track(listener)
	if err := s.build(); err != nil {
		return nil, errors.Join(err, listener.Close(), s.close(ctx))
	}
	return s, nil
}

// open starts what takes time by itself, all at once.
func (s *Server) open(ctx context.Context) (net.Listener, error) {
	first, err := s.cfg.listen(ctx)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.cfg.DataDir, 0o700); err != nil {
		return nil, errors.Join(err, first.Close())
	}
	var group errgroup.Group
	group.Go(func() (err error) {
		s.store, err = openStore(ctx, s.cfg)
		return err
	})
	group.Go(func() (err error) {
		if s.cfg.ServiceAddress != nil {
			if s.cfg.serviceAddr, err = s.cfg.ServiceAddress(ctx); err != nil {
				return fmt.Errorf("the address that pods reach the API by: %w", err)
			}
		}
		names, ips := s.cfg.names(first)
		s.certs, err = pki.Open(pki.Config{
			Dir: s.cfg.pkiDir(), Names: names, IPs: ips, Clock: s.cfg.Clock, Renewed: s.certsRenewed,
		})
		return err
	})
	if err := group.Wait(); err != nil {
		return nil, errors.Join(err, first.Close(), s.close(ctx))
	}
	s.listeners = newJoinedListener(first)
	return s.listeners, nil
}

// build assembles the server. It contacts nothing.
func (s *Server) build() error {
	s.metricsScheme = resourcemetrics.NewScheme()
	generic := newGenericConfig(s.cfg, s.listener, s.certs)
	applyOpenAPI(generic, legacyscheme.Scheme, s.metricsScheme)
	s.drained = generic.DrainedNotify()
	s.loopback = generic.LoopbackClientConfig
	remote, err := kubernetes.NewForConfig(s.DirectConfig())
	if err != nil {
		return fmt.Errorf("make the direct client: %w", err)
	}
	deferred := &deferredClient{Interface: remote}
	s.client = deferred
	s.factory = informers.NewSharedInformerFactoryWithOptions(deferred, informerResync, informers.WithTransform(slim(sharing.NewVersions(sharing.Newest))))

	tokens, keys, err := s.secure(generic)
	if err != nil {
		return err
	}
	if err := s.assemble(generic); err != nil {
		return err
	}
	if err := s.install(generic, tokens); err != nil {
		return err
	}
	serveOpenAPI(generic, s.generic)
	serveNoCRDs(s.generic)
	if err := s.serveTokenKeys(keys); err != nil {
		return err
	}
	s.remote = remote
	deferred.Interface, err = s.ClientAs(nil, 0)
	close(s.buildDone)
	return err
}

// assemble makes the server without its groups.
func (s *Server) assemble(generic *genericapiserver.Config) (err error) {
	s.options = newStorageOptions(s.store.client, generic.EffectiveVersion, generic.MergedResourceConfig)
	generic.RESTOptionsGetter = s.options
	if s.chain, err = newAdmission(&s.cfg.Config, generic, generic.MergedResourceConfig, s.factory, admissionClient{s.client}); err != nil {
		return err
	}
	generic.AdmissionControl = s.chain
	// A full store still serves reads: not ready, but alive.
	generic.AddReadyzChecks(s.readiness, storeCheck("etcd-space", s.store.space))
	generic.AddHealthChecks(storeCheck("etcd", s.store.ping))
	if s.generic, err = generic.Complete(nil).New("errand", genericapiserver.NewEmptyDelegate()); err != nil {
		return fmt.Errorf("make the server: %w", err)
	}
	s.generic.ShutdownTimeout = stopTimeout
	return nil
}

// install puts the groups on the server.
func (s *Server) install(generic *genericapiserver.Config, tokens serviceaccount.TokenGenerator) (err error) {
	if s.services, err = newServiceAddresses(s.cfg.serviceRange, s.cfg.serviceAddr); err != nil {
		return err
	}
	connections := &nodeConnections{nodeName: types.NodeName(s.cfg.NodeName), transport: nodeTransport(s.cfg.NodeDialer)}
	core := &coreGroup{
		authorizer:  generic.Authorization.Authorizer,
		audiences:   generic.Authentication.APIAudiences,
		tokens:      tokens,
		client:      s.client,
		eventTTL:    s.cfg.EventTTL,
		connections: connections,
		services:    s.services,
	}
	others := append(providers(generic, s.cfg, s.client), resourcemetrics.Group{
		Scheme:      s.metricsScheme,
		Pods:        s.factory.Core().V1().Pods().Lister(),
		Nodes:       s.factory.Core().V1().Nodes().Lister(),
		Connections: connections,
		Clock:       clock.RealClock{},
	})
	s.all, err = installGroups(s.generic, core, others, s.options, generic.MergedResourceConfig)
	return err
}

// built waits for the handler: admission plugins start to ask questions while
// the server is still being built.
func (s *Server) built(ctx context.Context) (http.Handler, error) {
	select {
	case <-s.buildDone:
		return s.generic.Handler, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// secure sets who may enter and what they may do. It returns what makes service
// account tokens and what verifies them.
func (s *Server) secure(generic *genericapiserver.Config) (serviceaccount.TokenGenerator, serviceaccount.PublicKeysGetter, error) {
	keys, err := serviceaccount.StaticPublicKeysGetter([]any{s.certs.TokenKey()})
	if err != nil {
		return nil, nil, fmt.Errorf("read the key of service account tokens: %w", err)
	}
	tokens, err := serviceaccount.JWTTokenGenerator(tokenIssuer, s.certs.TokenKey())
	if err != nil {
		return nil, nil, fmt.Errorf("sign service account tokens: %w", err)
	}
	audiences := authenticator.Audiences{tokenIssuer}
	generic.Authentication.APIAudiences = audiences
	if generic.Authentication.Authenticator, err = newAuthenticator(s.certs, keys, audiences, s.client); err != nil {
		return nil, nil, err
	}
	generic.Authorization.Authorizer, generic.RuleResolver, err = newAuthorizer(s.factory)
	return tokens, keys, err
}

// serveTokenKeys lets others verify service account tokens, as OpenID Connect
// providers do.
func (s *Server) serveTokenKeys(keys serviceaccount.PublicKeysGetter) error {
	metadata, err := serviceaccount.NewOpenIDMetadataProvider(tokenIssuer, "", s.sharedAddr(), keys)
	if err != nil {
		return fmt.Errorf("publish the key of service account tokens: %w", err)
	}
	routes.NewOpenIDMetadataServer(metadata).Install(s.generic.Handler.GoRestfulContainer)
	return nil
}

// slim makes the informers' transform. Without managed fields an object written
// by HTTP takes half as much; writers that send one without leave the stored ones.
// What it has in common with others it shares with them: an informer passes each
// object through here once, before anybody else has it.
func slim(versions *sharing.Versions) cache.TransformFunc {
	return func(obj any) (any, error) {
		if o, err := meta.Accessor(obj); err == nil && o.GetManagedFields() != nil {
			o.SetManagedFields(nil)
		}
		if o, ok := obj.(runtime.Object); ok {
			versions.Share(o)
		}
		return obj, nil
	}
}

func (s *Server) certsRenewed(ctx context.Context) error {
	if err := s.writeKubeconfig(); err != nil {
		return err
	}
	klog.FromContext(ctx).Info("Renewed the certificates and the kubeconfig", "path", s.cfg.Kubeconfig)
	return nil
}

// writeKubeconfig writes the kubeconfig where the user wants it, and always to
// the data directory too: errand's own commands look for it there.
func (s *Server) writeKubeconfig() error {
	own := filepath.Join(s.cfg.DataDir, kubeconfigFile)
	paths := []string{own}
	if s.cfg.Kubeconfig != own {
		paths = append(paths, s.cfg.Kubeconfig)
	}
	for _, path := range paths {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return fmt.Errorf("make the kubeconfig's directory: %w", err)
		}
		if err := writeKubeconfig(path, s.URL(), s.certs); err != nil {
			return err
		}
	}
	return nil
}

// close ends what New opened, apart from the listener.
func (s *Server) close(ctx context.Context) error {
	s.release(ctx)
	if s.store == nil {
		return nil
	}
	err := s.store.close()
	if errors.Is(err, etcd.ErrStillClosing) {
		// All that was acknowledged is on disk: nothing is lost by not waiting.
		klog.FromContext(ctx).Info("The store is slow to close", "dir", s.cfg.etcdDir())
		return nil
	}
	return err
}

// release ends what reads the store. Reads of one that failed hang for a while:
// they aren't waited for.
func (s *Server) release(ctx context.Context) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if s.factory != nil {
			s.factory.Shutdown()
		}
		if s.generic != nil {
			s.generic.Destroy()
		}
		if s.options != nil {
			s.options.stop()
		}
	}()
	timeout := time.NewTimer(stopTimeout)
	defer timeout.Stop()
	select {
	case <-done:
	case <-timeout.C:
		klog.FromContext(ctx).V(1).Info("Reads of the store were broken off")
	}
}

// deferredClient lets informers, admission and authorization be built before
// the registries that serve them.
type deferredClient struct {
	kubernetes.Interface
}
