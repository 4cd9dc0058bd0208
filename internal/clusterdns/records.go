package clusterdns

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
)

const (
	zone = Domain + "."
	// specVersion is the version of the specification that is followed.
	specVersion = "1.1.0"
	// ttl in seconds is that of answers and of refusals alike. A Job's pods start
	// within moments of each other: one that asks too early asks again soon.
	ttl = 5
	// nameServer is the name of this server, which a zone's SOA and NS must give.
	nameServer = "ns.dns." + zone
)

// node is what stands at a name of the tree: nothing, records, or only other
// names below it.
type node struct {
	exists  bool
	records []dns.RR
	// extra are addresses of names among the records.
	extra []dns.RR
}

// below is a node that exists for what is below it.
func below(exists bool) node { return node{exists: exists} }

// of is a node with records, or none without.
func of(records ...dns.RR) node { return node{exists: len(records) > 0, records: records} }

// lookup returns what stands at a name within the zone. owner is the name as it
// was asked for, so that answers repeat its letters' cases.
func (x *index) lookup(owner string, server netip.Addr) node {
	name := strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(owner), zone), ".")
	if name == "" {
		return of(soa(owner), &dns.NS{Hdr: header(owner, dns.TypeNS), Ns: nameServer})
	}
	labels := strings.Split(name, ".")
	rest := labels[:len(labels)-1]
	switch labels[len(labels)-1] {
	case "svc":
		x.mu.RLock()
		defer x.mu.RUnlock()
		return x.lookupService(owner, rest)
	case "pod":
		x.mu.RLock()
		defer x.mu.RUnlock()
		return x.lookupPod(owner, rest)
	case "dns-version":
		if len(rest) == 0 {
			return of(&dns.TXT{Hdr: header(owner, dns.TypeTXT), Txt: []string{specVersion}})
		}
	case "dns":
		if len(rest) == 0 {
			return below(true)
		}
		if len(rest) == 1 && rest[0] == "ns" {
			return of(address(owner, server))
		}
	}
	return node{}
}

func (x *index) lookupService(owner string, labels []string) node {
	if len(labels) == 0 {
		return below(true)
	}
	namespace := labels[len(labels)-1]
	if len(labels) == 1 {
		return below(len(x.services[namespace]) > 0)
	}
	s := x.services[namespace][labels[len(labels)-2]]
	if s == nil {
		return node{}
	}
	switch rest := labels[:len(labels)-2]; {
	case len(rest) == 0:
		return s.itself(owner)
	case len(rest) == 1 && strings.HasPrefix(rest[0], "_"):
		return below((len(s.endpoints) > 0 || s.routed.IsValid()) && s.hasNamedPort(rest[0]))
	case len(rest) == 1:
		return s.host(owner, rest[0])
	case len(rest) == 2:
		return s.port(owner, rest[0], rest[1])
	}
	return node{}
}

func (s *service) itself(owner string) node {
	if s.Spec.Type == v1.ServiceTypeExternalName {
		return of(&dns.CNAME{Hdr: header(owner, dns.TypeCNAME), Target: dns.Fqdn(s.Spec.ExternalName)})
	}
	if s.routed.IsValid() {
		return of(address(owner, s.routed))
	}
	records := make([]dns.RR, 0, len(s.endpoints))
	for _, e := range s.endpoints {
		records = append(records, address(owner, e.addr))
	}
	// Who takes the first shares the load.
	rand.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
	return of(records...)
}

func (s *service) host(owner, host string) node {
	var records []dns.RR
	for _, pod := range s.hosts[host] {
		records = append(records, address(owner, s.endpoints[pod].addr))
	}
	return of(records...)
}

func (s *service) hasNamedPort(proto string) bool {
	for _, p := range s.Spec.Ports {
		if p.Name != "" && proto == protoLabel(p.Protocol) {
			return true
		}
	}
	return false
}

// port has a record for each pod, with the port that the pod itself listens on,
// or one with the Service's own where its cluster IP is routed.
func (s *service) port(owner, port, proto string) node {
	var n node
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		if p.Name == "" || port != "_"+p.Name || proto != protoLabel(p.Protocol) {
			continue
		}
		if s.routed.IsValid() {
			target := s.fqdn()
			n.records = append(n.records, &dns.SRV{Hdr: header(owner, dns.TypeSRV), Weight: 100, Port: uint16(p.Port), Target: target})
			n.extra = append(n.extra, address(target, s.routed))
		}
		for _, e := range s.endpoints {
			number, ok := targetPort(e.pod, p)
			if !ok {
				continue
			}
			target := s.nameOf(e)
			n.records = append(n.records, &dns.SRV{Hdr: header(owner, dns.TypeSRV), Weight: 100, Port: uint16(number), Target: target})
			n.extra = append(n.extra, address(target, e.addr))
		}
	}
	n.exists = len(n.records) > 0
	return n
}

// targetPort is where the pod listens for the Service's port; it has none where
// it names no container port as the Service does.
func targetPort(pod *v1.Pod, p *v1.ServicePort) (int32, bool) {
	if p.TargetPort.Type == intstr.Int {
		return p.TargetPort.IntVal, true
	}
	for c := range podutil.ContainerIter(&pod.Spec, podutil.Containers|podutil.InitContainers) {
		for _, has := range c.Ports {
			if has.Name == p.TargetPort.StrVal && has.Protocol == p.Protocol {
				return has.ContainerPort, true
			}
		}
	}
	return 0, false
}

func protoLabel(p v1.Protocol) string { return "_" + strings.ToLower(string(p)) }

func (s *service) nameOf(e endpoint) string { return e.host + "." + s.fqdn() }

func (s *service) fqdn() string { return strings.Join([]string{s.Name, s.Namespace, "svc", zone}, ".") }

func (x *index) lookupPod(owner string, labels []string) node {
	switch len(labels) {
	case 0:
		return below(true)
	case 1:
		return below(len(x.pods[labels[0]]) > 0)
	case 2:
	default:
		return node{}
	}
	addr, err := netip.ParseAddr(strings.ReplaceAll(labels[0], "-", "."))
	if err != nil {
		if addr, err = netip.ParseAddr(strings.ReplaceAll(labels[0], "-", ":")); err != nil {
			return node{}
		}
	}
	for _, m := range x.byAddr[addr] {
		if m.pod.Namespace == labels[1] {
			return of(address(owner, addr))
		}
	}
	return node{}
}

// reverse returns the names of an address: those that Services give it, else,
// for one of the pods' own, the pod's.
func (x *index) reverse(owner string, addr netip.Addr, ofPods bool) node {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var records []dns.RR
	add := func(target string) {
		records = append(records, &dns.PTR{Hdr: header(owner, dns.TypePTR), Ptr: target})
	}
	if s := x.routedTo; s != nil && s.routed == addr {
		add(s.fqdn())
	}
	for _, m := range x.byAddr[addr] {
		for _, s := range m.services {
			add(s.nameOf(s.endpoints[m.pod.Name]))
		}
	}
	for _, m := range x.byAddr[addr] {
		if ofPods && len(records) == 0 {
			add(strings.Join([]string{dashed(addr), m.pod.Namespace, "pod", zone}, "."))
		}
	}
	return of(records...)
}

// addrOf returns the address that a name below in-addr.arpa or ip6.arpa is of.
func addrOf(name string) (netip.Addr, bool) {
	name = strings.ToLower(name)
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa."); ok {
		labels := strings.Split(rest, ".")
		reversed := make([]string, 0, len(labels))
		for i := len(labels) - 1; i >= 0; i-- {
			reversed = append(reversed, labels[i])
		}
		addr, err := netip.ParseAddr(strings.Join(reversed, "."))
		return addr, err == nil && addr.Is4()
	}
	rest, ok := strings.CutSuffix(name, ".ip6.arpa.")
	if labels := strings.Split(rest, "."); ok && len(labels) == 2*net.IPv6len {
		var b strings.Builder
		for i := len(labels) - 1; i >= 0; i-- {
			b.WriteString(labels[i])
			if i%4 == 0 && i > 0 {
				b.WriteByte(':')
			}
		}
		addr, err := netip.ParseAddr(b.String())
		return addr, err == nil
	}
	return netip.Addr{}, false
}

func header(owner string, kind uint16) dns.RR_Header {
	return dns.RR_Header{Name: owner, Rrtype: kind, Class: dns.ClassINET, Ttl: ttl}
}

func address(owner string, addr netip.Addr) dns.RR {
	if addr.Is4() {
		return &dns.A{Hdr: header(owner, dns.TypeA), A: addr.AsSlice()}
	}
	return &dns.AAAA{Hdr: header(owner, dns.TypeAAAA), AAAA: addr.AsSlice()}
}

// soa begins a zone, and tells by its last number how long a "no" may be
// remembered. There is no secondary that would read its serial number.
func soa(apex string) dns.RR {
	return &dns.SOA{
		Hdr: header(apex, dns.TypeSOA), Ns: nameServer, Mbox: "hostmaster." + zone,
		Serial: 1, Refresh: 7200, Retry: 1800, Expire: 86400, Minttl: ttl,
	}
}
