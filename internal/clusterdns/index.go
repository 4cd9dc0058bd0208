package clusterdns

import (
	"net/netip"
	"slices"
	"strings"
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
)

// index finds what a name stands for. A question costs its answer; a change of a
// pod costs the Services that select it; a change of a Service costs the pods of
// its namespace. It is safe for concurrent use.
type index struct {
	mu       sync.RWMutex
	services map[string]map[string]*service // by namespace and name
	// selecting finds the Services that may select a pod with a label.
	selecting map[requirement][]*service
	pods      map[string]map[string]*member // by namespace and name
	byAddr    map[netip.Addr][]*member
	// routed is Config.Routed, and routedTo the Service that has it, if there is one.
	routed   netip.Addr
	routedTo *service
}

// requirement is one label that a selector asks for. It stands for the whole
// selector, so that a pod is compared with few Services that don't select it.
type requirement struct{ namespace, key, value string }

// service is a Service and who answers for it.
type service struct {
	*v1.Service
	endpoints map[string]endpoint // by the pod's name
	// hosts are the names of the pods with that host name, of which there is
	// nearly always one.
	hosts map[string][]string
	// routed is the cluster IP where packets are routed to it; else invalid.
	routed netip.Addr
}

// endpoint is a pod as one Service has it.
type endpoint struct {
	addr netip.Addr
	host string // the label before the Service's name
	pod  *v1.Pod
}

// member is a pod that has an address and hasn't ended.
type member struct {
	pod      *v1.Pod
	addr     netip.Addr
	services []*service // that it is an endpoint of
}

func newIndex(routed netip.Addr) *index {
	return &index{
		routed:    routed,
		services:  map[string]map[string]*service{},
		selecting: map[requirement][]*service{},
		pods:      map[string]map[string]*member{},
		byAddr:    map[netip.Addr][]*member{},
	}
}

func (x *index) setPod(pod *v1.Pod) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.dropPod(pod.Namespace, pod.Name)
	addr, err := netip.ParseAddr(pod.Status.PodIP)
	if err != nil || podutil.IsPodTerminal(pod) {
		return
	}
	m := &member{pod: pod, addr: addr}
	put(x.pods, pod.Namespace, pod.Name, m)
	x.byAddr[addr] = append(x.byAddr[addr], m)
	for key, value := range pod.Labels {
		for _, s := range x.selecting[requirement{pod.Namespace, key, value}] {
			s.consider(m)
		}
	}
}

func (x *index) deletePod(pod *v1.Pod) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.dropPod(pod.Namespace, pod.Name)
}

func (x *index) dropPod(namespace, name string) {
	m := x.pods[namespace][name]
	if m == nil {
		return
	}
	remove(x.pods, namespace, name)
	dropFrom(x.byAddr, m.addr, m)
	for _, s := range m.services {
		s.drop(name)
	}
}

func (x *index) setService(svc *v1.Service) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.dropService(svc.Namespace, svc.Name)
	s := &service{Service: svc, endpoints: map[string]endpoint{}, hosts: map[string][]string{}}
	if ip, err := netip.ParseAddr(svc.Spec.ClusterIP); err == nil && ip == x.routed {
		s.routed, x.routedTo = ip, s
	}
	put(x.services, svc.Namespace, svc.Name, s)
	r, ok := s.requires()
	if !ok {
		return
	}
	x.selecting[r] = append(x.selecting[r], s)
	for _, m := range x.pods[svc.Namespace] {
		s.consider(m)
	}
}

func (x *index) deleteService(svc *v1.Service) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.dropService(svc.Namespace, svc.Name)
}

func (x *index) dropService(namespace, name string) {
	s := x.services[namespace][name]
	if s == nil {
		return
	}
	remove(x.services, namespace, name)
	if x.routedTo == s {
		x.routedTo = nil
	}
	if r, ok := s.requires(); ok {
		dropFrom(x.selecting, r, s)
	}
	for pod := range s.endpoints {
		m := x.pods[namespace][pod]
		m.services = slices.DeleteFunc(m.services, func(other *service) bool { return other == s })
	}
}

// requires picks the label that the Service is found by: of those that it asks
// for, the one whose value is longest, as that tends to be the one that tells
// pods apart. A Service without a selector is found by none.
func (s *service) requires() (requirement, bool) {
	if s.Spec.Type == v1.ServiceTypeExternalName || s.routed.IsValid() {
		return requirement{}, false
	}
	var r requirement
	found := false
	for key, value := range s.Spec.Selector {
		if !found || len(value) > len(r.value) || len(value) == len(r.value) && key < r.key {
			r, found = requirement{s.Namespace, key, value}, true
		}
	}
	return r, found
}

// consider makes the pod an endpoint if the Service selects it and it is ready,
// or the Service publishes it before (publishNotReadyAddresses).
func (s *service) consider(m *member) {
	if !labels.SelectorFromSet(s.Spec.Selector).Matches(labels.Set(m.pod.Labels)) {
		return
	}
	ready := podutil.IsPodReady(m.pod) && m.pod.DeletionTimestamp == nil
	if !ready && !s.Spec.PublishNotReadyAddresses {
		return
	}
	e := endpoint{addr: m.addr, host: dashed(m.addr), pod: m.pod}
	if m.pod.Spec.Hostname != "" && m.pod.Spec.Subdomain == s.Name {
		e.host = m.pod.Spec.Hostname
	}
	s.endpoints[m.pod.Name] = e
	s.hosts[e.host] = append(s.hosts[e.host], m.pod.Name)
	m.services = append(m.services, s)
}

func (s *service) drop(pod string) {
	e := s.endpoints[pod]
	delete(s.endpoints, pod)
	dropFrom(s.hosts, e.host, pod)
}

// dashed is an address as a label: 10-57-0-2.
func dashed(addr netip.Addr) string {
	return strings.Map(func(r rune) rune {
		if r == '.' || r == ':' {
			return '-'
		}
		return r
	}, addr.String())
}

func put[V any](m map[string]map[string]V, namespace, name string, v V) {
	if m[namespace] == nil {
		m[namespace] = map[string]V{}
	}
	m[namespace][name] = v
}

func remove[V any](m map[string]map[string]V, namespace, name string) {
	delete(m[namespace], name)
	if len(m[namespace]) == 0 {
		delete(m, namespace)
	}
}

func dropFrom[K, V comparable](m map[K][]V, key K, v V) {
	left := slices.DeleteFunc(m[key], func(other V) bool { return other == v })
	if len(left) == 0 {
		delete(m, key)
		return
	}
	m[key] = left
}
