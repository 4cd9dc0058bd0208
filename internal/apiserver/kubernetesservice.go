package apiserver

import (
	"context"
	"net/netip"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	api "k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/apis/discovery"
	"k8s.io/utils/ptr"
)

const (
	// kubernetesServiceName is the Service by which pods reach the API, in the
	// namespace "default" of every Kubernetes.
	kubernetesServiceName = "kubernetes"
	kubernetesServicePort = 443
	kubernetesPortName    = "https"
	// httpsProtocol is what that port speaks, below TLS.
	httpsProtocol = corev1.ProtocolTCP
)

var (
	servicesResource       = corev1.SchemeGroupVersion.WithResource("services")
	endpointsResource      = corev1.SchemeGroupVersion.WithResource("endpoints")
	endpointSlicesResource = discoveryv1.SchemeGroupVersion.WithResource("endpointslices")
)

// kubernetesService is the Service "kubernetes" with its Endpoints and
// EndpointSlice, as Kubernetes' API servers keep them. They are written at the
// start, and again when somebody deletes the Service; there is one API server,
// so that nothing else changes them.
type kubernetesService struct {
	seed *seeder
	// addr is the cluster IP, invalid where pods don't reach the API; the API
	// itself listens on port of the same address.
	addr netip.Addr
	port int32

	// mu is held while they are written: a Service that gives way at the start is
	// also seen as one that somebody deleted, and two that ask for one address at
	// once don't both get it.
	mu sync.Mutex
}

// ensure makes them as they are to be, or takes those of an earlier run away.
func (k *kubernetesService) ensure(ctx context.Context) error {
	if !k.addr.IsValid() {
		return k.withdraw(ctx)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return runAll(ctx, []task{
		k.seed.put(servicesResource, k.service(), amendService),
		k.seed.put(endpointsResource, k.endpoints(), amendEndpoints),
		k.seed.put(endpointSlicesResource, k.endpointSlice(), amendEndpointSlice),
	})
}

// withdraw leaves alone what doesn't bear the API server's labels: it is
// somebody's own. The Service goes last, as it tells whether there is anything
// to do yet.
func (k *kubernetesService) withdraw(ctx context.Context) error {
	meta := k.meta()
	have, err := k.seed.get(ctx, servicesResource, &meta)
	if err != nil || have == nil {
		return err
	}
	service := have.(*api.Service)
	for key, value := range apiServerLabels() {
		if service.Labels[key] != value {
			return nil
		}
	}
	for _, resource := range []schema.GroupVersionResource{endpointSlicesResource, endpointsResource, servicesResource} {
		if err := k.seed.remove(resource, &meta)(ctx); err != nil {
			return err
		}
	}
	return nil
}

// keep makes the Service anew when somebody deleted it, as `kubectl delete all
// --all` does.
func (k *kubernetesService) keep(ctx context.Context, factory informers.SharedInformerFactory) error {
	if !k.addr.IsValid() {
		return nil
	}
	_, err := factory.Core().V1().Services().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		DeleteFunc: func(obj any) {
			key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(obj)
			if err != nil || key != metav1.NamespaceDefault+"/"+kubernetesServiceName || ctx.Err() != nil {
				return
			}
			if err := k.insist(ctx); err != nil {
				klog.FromContext(ctx).Error(err, "The Service that pods reach the API by couldn't be made anew; it is when errand starts again", "service", key)
			}
		},
	})
	return err
}

// insist tries again for a minute: a deletion is seen before the address is free
// again.
func (k *kubernetesService) insist(ctx context.Context) error {
	backoff := wait.Backoff{Duration: 5 * time.Millisecond, Factor: 2, Steps: 14}
	var last error
	err := wait.ExponentialBackoffWithContext(ctx, backoff, func(ctx context.Context) (bool, error) {
		last = k.ensure(ctx)
		return last == nil, nil
	})
	if ctx.Err() != nil {
		return nil // errand ends
	}
	if err != nil {
		return last
	}
	return nil
}

func apiServerLabels() map[string]string {
	return map[string]string{"component": "apiserver", "provider": "kubernetes"}
}

func (k *kubernetesService) meta() metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: kubernetesServiceName}
}

func (k *kubernetesService) service() *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: k.meta(),
		Spec: corev1.ServiceSpec{
			Type:            corev1.ServiceTypeClusterIP,
			ClusterIP:       k.addr.String(),
			IPFamilyPolicy:  ptr.To(corev1.IPFamilyPolicySingleStack),
			SessionAffinity: corev1.ServiceAffinityNone,
			Ports: []corev1.ServicePort{{
				Name: kubernetesPortName, Protocol: httpsProtocol, Port: kubernetesServicePort, TargetPort: intstr.FromInt32(k.port),
			}},
		},
	}
	s.Labels = apiServerLabels()
	return s
}

func (k *kubernetesService) endpoints() *api.Endpoints {
	e := &api.Endpoints{
		ObjectMeta: k.meta(),
		Subsets: []api.EndpointSubset{{
			Addresses: []api.EndpointAddress{{IP: k.addr.String()}},
			Ports:     []api.EndpointPort{{Name: kubernetesPortName, Port: k.port, Protocol: api.ProtocolTCP}},
		}},
	}
	// The EndpointSlice is written here, not mirrored from this.
	e.Labels = map[string]string{discoveryv1.LabelSkipMirror: "true"}
	return e
}

func (k *kubernetesService) endpointSlice() *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  k.meta(),
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints: []discoveryv1.Endpoint{{
			Addresses:  []string{k.addr.String()},
			Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)},
		}},
		Ports: []discoveryv1.EndpointPort{{
			Name: ptr.To(kubernetesPortName), Port: ptr.To(k.port), Protocol: ptr.To(httpsProtocol),
		}},
	}
	s.Labels = map[string]string{discoveryv1.LabelServiceName: kubernetesServiceName}
	return s
}

// amendService keeps what users may have changed: labels, or the type.
func amendService(have, want runtime.Object) runtime.Object {
	h, w := have.(*api.Service), want.(*api.Service)
	if h.Spec.ClusterIP != w.Spec.ClusterIP || len(h.Spec.Selector) > 0 {
		return nil
	}
	for i := range min(len(h.Spec.Ports), len(w.Spec.Ports)) {
		w.Spec.Ports[i].NodePort = h.Spec.Ports[i].NodePort
	}
	h.Spec.Ports = w.Spec.Ports
	return h
}

func amendEndpoints(have, want runtime.Object) runtime.Object {
	h := have.(*api.Endpoints)
	h.Subsets = want.(*api.Endpoints).Subsets
	return h
}

func amendEndpointSlice(have, want runtime.Object) runtime.Object {
	h, w := have.(*discovery.EndpointSlice), want.(*discovery.EndpointSlice)
	if h.AddressType != w.AddressType {
		return nil
	}
	h.Endpoints, h.Ports = w.Endpoints, w.Ports
	return h
}
