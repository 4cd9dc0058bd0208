package apiserver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
)

// at says that pods reach the API there. Nothing listens at the address.
func at(addr string) func(context.Context) (netip.Addr, error) {
	return func(context.Context) (netip.Addr, error) { return netip.MustParseAddr(addr), nil }
}

// kubernetesServiceOf is what tools read of the Service and of its endpoints.
func kubernetesServiceOf(t *testing.T, client kubernetes.Interface) (address string, port int32) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	service, err := client.CoreV1().Services("default").Get(t.Context(), "kubernetes", metav1.GetOptions{})
	must(err)
	endpoints, err := client.CoreV1().Endpoints("default").Get(t.Context(), "kubernetes", metav1.GetOptions{})
	must(err)
	slices, err := client.DiscoveryV1().EndpointSlices("default").List(t.Context(), metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=kubernetes"})
	must(err)
	address, port = service.Spec.ClusterIP, service.Spec.Ports[0].TargetPort.IntVal
	if got := service.Spec.Ports[0]; len(service.Spec.Ports) != 1 || got.Name != "https" || got.Port != 443 || got.Protocol != corev1.ProtocolTCP {
		t.Errorf("the Service's ports are %v", service.Spec.Ports)
	}
	if diff := cmp.Diff([]string{address}, service.Spec.ClusterIPs); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{"component": "apiserver", "provider": "kubernetes"}, service.Labels); diff != "" {
		t.Error(diff)
	}
	if s := endpoints.Subsets; len(s) != 1 || len(s[0].Addresses) != 1 || s[0].Addresses[0].IP != address || len(s[0].Ports) != 1 || s[0].Ports[0].Port != port {
		t.Errorf("Endpoints: %v", s)
	}
	if len(slices.Items) != 1 || slices.Items[0].Endpoints[0].Addresses[0] != address || *slices.Items[0].Ports[0].Port != port {
		t.Errorf("EndpointSlices: %v", slices.Items)
	}
	return address, port
}

// The Service comes with the address, follows it and the port, comes back when
// it is deleted, and goes with the address.
func TestKubernetesService(t *testing.T) {
	dir := t.TempDir()
	for _, addr := range []string{"198.18.0.1", "198.18.0.1", "198.18.0.2"} {
		s, stop := startServer(t, Config{DataDir: dir, ServiceAddress: at(addr)})
		got, port := kubernetesServiceOf(t, s.Client())
		if want := s.Addr().(*net.TCPAddr).Port; got != addr || port != int32(want) {
			t.Errorf("the Service is at %s port %d, want %s port %d", got, port, addr, want)
		}
		if err := s.certFor(addr); err != nil {
			t.Error(err)
		}
		stop()
	}
	s, stop := startServer(t, Config{DataDir: dir, ServiceAddress: at("198.18.0.2")})
	services := s.Client().CoreV1().Services("default")
	old, err := services.Get(t.Context(), "kubernetes", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	slices := s.Client().DiscoveryV1().EndpointSlices("default")
	slice, err := slices.Get(t.Context(), "kubernetes", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	watches := make([]watch.Interface, 2)
	watches[0], err = slices.Watch(ctx, metav1.ListOptions{ResourceVersion: slice.ResourceVersion})
	if err != nil {
		t.Fatal(err)
	}
	defer watches[0].Stop()
	watches[1], err = services.Watch(ctx, metav1.ListOptions{ResourceVersion: slice.ResourceVersion})
	if err != nil {
		t.Fatal(err)
	}
	defer watches[1].Stop()
	if err := slices.Delete(t.Context(), "kubernetes", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := services.Delete(t.Context(), "kubernetes", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, w := range watches {
		for e := range w.ResultChan() {
			if e.Type == watch.Added {
				break
			}
		}
	}
	if ctx.Err() != nil {
		t.Fatal("it wasn't made anew")
	}
	kubernetesServiceOf(t, s.Client())
	if anew, err := services.Get(t.Context(), "kubernetes", metav1.GetOptions{}); err != nil || anew.UID == old.UID {
		t.Errorf("the Service wasn't made anew: %v", err)
	}
	stop()

	s, stop = startServer(t, Config{DataDir: dir})
	for _, err := range []error{
		ignoreResult(s.Client().CoreV1().Services("default").Get(t.Context(), "kubernetes", metav1.GetOptions{})),
		ignoreResult(s.Client().CoreV1().Endpoints("default").Get(t.Context(), "kubernetes", metav1.GetOptions{})),
		ignoreResult(s.Client().DiscoveryV1().EndpointSlices("default").Get(t.Context(), "kubernetes", metav1.GetOptions{})),
	} {
		if !apierrors.IsNotFound(err) {
			t.Errorf("without an address: %v, want it gone", err)
		}
	}
	// What is somebody's own stays.
	own := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 443}}},
	}
	if _, err := s.Client().CoreV1().Services("default").Create(t.Context(), own, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	stop()
	s, _ = startServer(t, Config{DataDir: dir})
	if _, err := s.Client().CoreV1().Services("default").Get(t.Context(), "kubernetes", metav1.GetOptions{}); err != nil {
		t.Errorf("somebody's own Service: %v", err)
	}
}

func ignoreResult[T any](_ T, err error) error { return err }

// certFor verifies the certificate that is served for an address or a name.
func (s *Server) certFor(name string) error {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.CA())
	c, err := tls.Dial("tcp", s.Addr().String(), &tls.Config{RootCAs: roots, ServerName: name})
	if err != nil {
		return err
	}
	return c.Close()
}

// Names and addresses by which pods call it are in the certificate; where keys
// of tokens are read is an address that pods reach, too.
func TestPodsCanVerifyTheServer(t *testing.T) {
	s, _ := startServer(t, Config{DataDir: t.TempDir(), ServiceAddress: at("198.18.0.1")})
	for _, name := range []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "198.18.0.1", "127.0.0.1"} {
		if err := s.certFor(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	raw, err := s.Client().CoreV1().RESTClient().Get().AbsPath("/.well-known/openid-configuration").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var discovery struct {
		JWKS string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(raw, &discovery); err != nil || !strings.HasPrefix(discovery.JWKS, "https://198.18.0.1:") {
		t.Errorf("%v, jwks_uri %q", err, discovery.JWKS)
	}
}

// An address that can't be had ends the start.
func TestNoServiceAddress(t *testing.T) {
	broken := errors.New("no network")
	_, err := New(t.Context(), Config{
		DataDir: t.TempDir(), RuntimeDir: shortDir(t), Listen: "127.0.0.1:0",
		ServiceAddress: func(context.Context) (netip.Addr, error) { return netip.Addr{}, broken },
	})
	if !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

// A cluster IP outside of the range is the API's alone, and can be changed like
// any other Service's object otherwise.
func TestOneAddressOutsideOfTheRange(t *testing.T) {
	s, _ := startServer(t, Config{DataDir: t.TempDir(), ServiceAddress: at("198.18.0.1")})
	services := s.Client().CoreV1().Services("default")
	if _, err := services.Patch(t.Context(), "kubernetes", types.MergePatchType, []byte(`{"metadata":{"labels":{"a":"b"}}}`), metav1.PatchOptions{}); err != nil {
		t.Error(err)
	}
	for ip, dryRun := range map[string][]string{"198.18.0.1": nil, "198.18.0.2": {metav1.DryRunAll}} {
		other := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "other"}, Spec: corev1.ServiceSpec{ClusterIP: ip, Ports: []corev1.ServicePort{{Port: 1}}}}
		if _, err := services.Create(t.Context(), other, metav1.CreateOptions{DryRun: dryRun}); !apierrors.IsInvalid(err) {
			t.Errorf("%s: %v, want it refused", ip, err)
		}
	}
}

// The start, where it makes way for itself, and who sees it delete the Service
// don't stand in each other's way.
func TestKubernetesServiceIsMadeByOneAtATime(t *testing.T) {
	s, _ := startServer(t, Config{DataDir: t.TempDir(), ServiceAddress: at("198.18.0.1")})
	for range 20 {
		if err := s.Client().CoreV1().Services("default").Delete(t.Context(), "kubernetes", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		var group errgroup.Group
		for range 4 {
			group.Go(func() error { return s.kubernetes.ensure(t.Context()) })
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		kubernetesServiceOf(t, s.Client())
	}
}
