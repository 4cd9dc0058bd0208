package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apiserver/pkg/registry/rest"
	api "k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/registry/core/service/ipallocator"
	"k8s.io/kubernetes/pkg/registry/core/service/portallocator"
)

// nodePortRange is Kubernetes' default.
const nodePortRange = "30000-32767"

// serviceAddresses hands out the cluster IPs and node ports of Services. Which
// are taken is read from the Services at each start: one process writes to the
// store, so that nothing else need be kept.
type serviceAddresses struct {
	ips    ipallocator.Interface
	ports  *portallocator.PortAllocator
	lister rest.Lister
}

// newServiceAddresses also hands out one address that may be outside of the
// range, if it is valid: to who asks for it, as the Service "kubernetes" does.
func newServiceAddresses(cidr *net.IPNet, further netip.Addr) (*serviceAddresses, error) {
	ips, err := ipallocator.NewInMemory(cidr)
	if err != nil {
		return nil, fmt.Errorf("addresses of Services: %w", err)
	}
	ports, err := portallocator.NewInMemory(*utilnet.ParsePortRangeOrDie(nodePortRange))
	if err != nil {
		return nil, fmt.Errorf("ports of Services: %w", err)
	}
	s := &serviceAddresses{ips: ips, ports: ports}
	if further.IsValid() {
		s.ips = &furtherAddress{Interface: ips, ip: further.AsSlice()}
	}
	return s, nil
}

func (s *serviceAddresses) byFamily() map[api.IPFamily]ipallocator.Interface {
	return map[api.IPFamily]ipallocator.Interface{s.ips.IPFamily(): s.ips}
}

// load takes what the stored Services use. It must run before any is created.
func (s *serviceAddresses) load(ctx context.Context) error {
	list, err := s.list(ctx)
	if err != nil {
		return fmt.Errorf("list Services: %w", err)
	}
	for i := range list.(*api.ServiceList).Items {
		service := &list.(*api.ServiceList).Items[i]
		if err := s.take(service); err != nil {
			return fmt.Errorf("service %s/%s: %w", service.Namespace, service.Name, err)
		}
	}
	return nil
}

// list asks again for as long as it is told to: on a busy machine the watch
// cache may take longer to fill than a request waits for it.
func (s *serviceAddresses) list(ctx context.Context) (runtime.Object, error) {
	for {
		list, err := s.lister.List(ctx, &metainternalversion.ListOptions{})
		seconds, later := apierrors.SuggestsClientDelay(err)
		if err == nil || !later {
			return list, err
		}
		select {
		case <-time.After(time.Duration(seconds) * time.Second):
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), err)
		}
	}
}

func (s *serviceAddresses) take(service *api.Service) error {
	for _, text := range service.Spec.ClusterIPs {
		ip := net.ParseIP(text)
		if ip == nil { // "None"
			continue
		}
		// An address of a former range stays with its Service and blocks nobody.
		var outside *ipallocator.ErrNotInRange
		if err := s.ips.Allocate(ip); err != nil && !errors.As(err, &outside) && !errors.Is(err, ipallocator.ErrAllocated) {
			return fmt.Errorf("take %s: %w", ip, err)
		}
	}
	for _, port := range service.Spec.Ports {
		if port.NodePort == 0 {
			continue
		}
		var outside *portallocator.ErrNotInRange
		if err := s.ports.Allocate(int(port.NodePort)); err != nil && !errors.As(err, &outside) && !errors.Is(err, portallocator.ErrAllocated) {
			return fmt.Errorf("take port %d: %w", port.NodePort, err)
		}
	}
	return nil
}

// furtherAddress is a range and one address more.
type furtherAddress struct {
	ipallocator.Interface
	ip net.IP

	mu    sync.Mutex
	taken bool
}

// Allocate implements ipallocator.Interface.
func (a *furtherAddress) Allocate(ip net.IP) error {
	if !ip.Equal(a.ip) {
		return a.Interface.Allocate(ip)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.taken {
		return ipallocator.ErrAllocated
	}
	a.taken = true
	return nil
}

// Release implements ipallocator.Interface.
func (a *furtherAddress) Release(ip net.IP) error {
	if !ip.Equal(a.ip) {
		return a.Interface.Release(ip)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.taken = false
	return nil
}

// Has implements ipallocator.Interface.
func (a *furtherAddress) Has(ip net.IP) bool {
	if !ip.Equal(a.ip) {
		return a.Interface.Has(ip)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.taken
}

// ForEach implements ipallocator.Interface.
func (a *furtherAddress) ForEach(visit func(net.IP)) {
	a.Interface.ForEach(visit)
	if a.Has(a.ip) {
		visit(a.ip)
	}
}

// DryRun implements ipallocator.Interface. As with a range's, whether an address
// is free isn't looked at.
func (a *furtherAddress) DryRun() ipallocator.Interface {
	return &furtherAddress{Interface: a.Interface.DryRun(), ip: a.ip}
}
