package inprocess_test

import (
	"context"
	"flag"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/authentication/request/anonymous"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	openapinamer "k8s.io/apiserver/pkg/endpoints/openapi"
	"k8s.io/apiserver/pkg/registry/generic"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/filters"
	genericoptions "k8s.io/apiserver/pkg/server/options"
	serverstorage "k8s.io/apiserver/pkg/server/storage"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/apiserver/pkg/util/compatibility"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	restclient "k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/generated/openapi"

	"errand.dev/errand/internal/apiserver/etcd"
	"errand.dev/errand/internal/apiserver/inprocess"
)

// testServer is a real API server on a real etcd, with the resources that the in-process client serves. One serves all tests of the package.
type testServer struct {
	loopback *restclient.Config
	remote   kubernetes.Interface
	client   kubernetes.Interface
	config   inprocess.Config
	etcd     *etcd.Member
	close    func()
}

var shared = sync.OnceValues(startServer)

func TestMain(m *testing.M) {
	flag.Parse()
	if !testing.Verbose() {
		quiet := flag.NewFlagSet("", flag.ContinueOnError)
		klog.InitFlags(quiet)
		_ = quiet.Parse([]string{"-logtostderr=false", "-stderrthreshold=FATAL"})
		klog.SetOutput(io.Discard)
	}
	code := m.Run()
	if s, err := shared(); err == nil {
		s.close()
	}
	os.Exit(code)
}

func server(tb testing.TB) *testServer {
	tb.Helper()
	s, err := shared()
	if err != nil {
		tb.Fatalf("start the test server: %v", err)
	}
	return s
}

func startServer() (_ *testServer, err error) {
	s := &testServer{}
	dir, err := os.MkdirTemp("/tmp", "e")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.close = func() { cancel(); _ = os.RemoveAll(dir) }
	if s.etcd, err = etcd.Start(ctx, etcd.Config{Dir: dir + "/data", SocketDir: dir}); err != nil {
		return nil, err
	}
	config, factory, err := s.serverConfig("unix://" + s.etcd.Socket())
	if err != nil {
		return nil, err
	}
	groups, err := apiGroups(config.RESTOptionsGetter, s.remote)
	if err != nil {
		return nil, err
	}
	srv, err := config.Complete(factory).New("inprocess-test", genericapiserver.NewEmptyDelegate())
	if err != nil {
		return nil, err
	}
	if err := srv.InstallLegacyAPIGroup("/api", groups[0]); err != nil {
		return nil, err
	}
	if err := srv.InstallAPIGroups(groups[1:]...); err != nil {
		return nil, err
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		_ = srv.PrepareRun().RunWithContext(ctx)
	}()
	s.close = func() { cancel(); <-stopped; _ = s.etcd.Close(); _ = os.RemoveAll(dir) }
	factory.Start(ctx.Done())
	s.config = inprocess.Config{
		Storage:     storageOf(groups),
		Scheme:      legacyscheme.Scheme,
		Codecs:      legacyscheme.Codecs,
		Fallback:    s.remote,
		Admission:   config.AdmissionControl,
		Equivalents: config.EquivalentResourceRegistry,
	}
	if s.client, err = inprocess.New(s.config); err != nil {
		return nil, err
	}
	return s, s.prepare(ctx)
}

// serverConfig also makes the loopback client and the informers of the admission plugins.
func (s *testServer) serverConfig(etcdURL string) (*genericapiserver.Config, informers.SharedInformerFactory, error) {
	c := genericapiserver.NewConfig(legacyscheme.Codecs)
	c.EffectiveVersion = compatibility.DefaultBuildEffectiveVersion()
	c.LongRunningFunc = filters.BasicLongRunningRequestCheck(sets.NewString("watch"), nil)
	namer := openapinamer.NewDefinitionNamer(legacyscheme.Scheme)
	c.OpenAPIConfig = genericapiserver.DefaultOpenAPIConfig(openapi.GetOpenAPIDefinitions, namer)
	c.OpenAPIV3Config = genericapiserver.DefaultOpenAPIV3Config(openapi.GetOpenAPIDefinitions, namer)
	c.SkipOpenAPIInstallation = true

	serving := genericoptions.NewSecureServingOptions()
	serving.BindAddress, serving.BindPort = net.IPv4(127, 0, 0, 1), 0
	var err error
	if serving.Listener, serving.BindPort, err = genericoptions.CreateListener("tcp", "127.0.0.1:0", net.ListenConfig{}); err != nil {
		return nil, nil, err
	}
	if err := serving.WithLoopback().ApplyTo(&c.SecureServing, &c.LoopbackClientConfig); err != nil {
		return nil, nil, err
	}
	c.Authentication.Authenticator = anonymous.NewAuthenticator(nil)
	c.Authorization.Authorizer = authorizerfactory.NewAlwaysAllowAuthorizer()
	s.loopback = restclient.CopyConfig(c.LoopbackClientConfig)
	s.loopback.QPS = -1
	if s.remote, err = kubernetes.NewForConfig(s.loopback); err != nil {
		return nil, nil, err
	}

	c.RESTOptionsGetter = restOptions(c, etcdURL)
	factory := informers.NewSharedInformerFactory(s.remote, 0)
	c.AdmissionControl, err = newAdmission(c, s.remote, factory)
	return c, factory, err
}

// restOptions stores like a default kube-apiserver: protobuf, with watch caches but for events.
func restOptions(c *genericapiserver.Config, etcdURL string) generic.RESTOptionsGetter {
	backend := storagebackend.NewDefaultConfig("/registry", nil)
	backend.Transport.ServerList = []string{etcdURL}
	backend.StorageObjectCountTracker = c.StorageObjectCountTracker
	factory := serverstorage.NewDefaultStorageFactory(*backend, runtime.ContentTypeProtobuf, legacyscheme.Codecs,
		serverstorage.NewDefaultResourceEncodingConfigForEffectiveVersion(legacyscheme.Scheme, c.EffectiveVersion), serverstorage.NewResourceConfig(), nil)
	factory.AddCohabitatingResources(schema.GroupResource{Resource: "events"}, schema.GroupResource{Group: "events.k8s.io", Resource: "events"})
	options := genericoptions.NewEtcdOptions(backend)
	options.WatchCacheSizes = []string{"events#0", "events.events.k8s.io#0"}
	return options.CreateRESTOptionsGetter(factory, nil)
}

// prepare waits until the server serves and admits, and makes what every cluster has.
func (s *testServer) prepare(ctx context.Context) error {
	return wait.PollUntilContextTimeout(ctx, 10*time.Millisecond, 30*time.Second, true, func(ctx context.Context) (bool, error) {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
		if _, err := s.remote.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
			return false, nil
		}
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "probe"}}
		_, err := s.remote.CoreV1().ConfigMaps("default").Create(ctx, cm, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err == nil, nil
	})
}
