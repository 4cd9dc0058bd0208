package clusterdns

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// podBuilder makes pods of the namespace default, ready unless said otherwise.
type podBuilder struct{ pod v1.Pod }

func makePod(name, ip string) *podBuilder {
	return &podBuilder{v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"job-name": "train", "tier": "x"}},
		Spec:       v1.PodSpec{Containers: []v1.Container{{Name: "c", Ports: []v1.ContainerPort{{Name: "web", ContainerPort: 8080, Protocol: v1.ProtocolTCP}}}}},
		Status: v1.PodStatus{
			Phase: v1.PodRunning, PodIP: ip,
			Conditions: []v1.PodCondition{{Type: v1.PodReady, Status: v1.ConditionTrue}},
		},
	}}
}

func (b *podBuilder) Host(host, subdomain string) *podBuilder {
	b.pod.Spec.Hostname, b.pod.Spec.Subdomain = host, subdomain
	return b
}

func (b *podBuilder) Label(key, value string) *podBuilder {
	b.pod.Labels = map[string]string{key: value}
	return b
}

func (b *podBuilder) NotReady() *podBuilder {
	b.pod.Status.Conditions = nil
	return b
}

func (b *podBuilder) Terminating() *podBuilder {
	b.pod.DeletionTimestamp = &metav1.Time{}
	return b
}

func (b *podBuilder) Phase(p v1.PodPhase) *podBuilder {
	b.pod.Status.Phase = p
	return b
}

func (b *podBuilder) Obj() *v1.Pod { return b.pod.DeepCopy() }

func makeService(name string, change ...func(*v1.ServiceSpec)) *v1.Service {
	s := &v1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec:       v1.ServiceSpec{ClusterIP: v1.ClusterIPNone, Selector: map[string]string{"job-name": "train"}},
	}
	for _, c := range change {
		c(&s.Spec)
	}
	return s
}

func external(name string) func(*v1.ServiceSpec) {
	return func(s *v1.ServiceSpec) { s.Type, s.ExternalName, s.Selector = v1.ServiceTypeExternalName, name, nil }
}

func selecting(key, value string) func(*v1.ServiceSpec) {
	return func(s *v1.ServiceSpec) { s.Selector = map[string]string{key: value} }
}

func publishing(s *v1.ServiceSpec) { s.PublishNotReadyAddresses = true }

func port(name string, number int32, target intstr.IntOrString) func(*v1.ServiceSpec) {
	return func(s *v1.ServiceSpec) {
		s.Ports = append(s.Ports, v1.ServicePort{Name: name, Port: number, TargetPort: target, Protocol: v1.ProtocolTCP})
	}
}

// world has one of all that names are made of.
func world() *index {
	x := newIndex(netip.MustParseAddr("10.57.255.254"))
	for _, s := range []*v1.Service{
		makeService("kubernetes", port("https", 443, intstr.FromInt32(7443)), func(s *v1.ServiceSpec) { s.ClusterIP, s.Selector = "10.57.255.254", nil }),
		makeService("svc", port("http", 80, intstr.FromString("web")), port("", 9, intstr.FromInt32(9))),
		makeService("early", publishing),
		makeService("empty", selecting("job-name", "nobody")),
		makeService("clustered", func(s *v1.ServiceSpec) { s.ClusterIP = "10.96.0.7" }),
		makeService("both", func(s *v1.ServiceSpec) { s.Selector = map[string]string{"job-name": "train", "tier": "y"} }),
		makeService("bare", func(s *v1.ServiceSpec) { s.Selector = nil }),
		makeService("out", external("db.example.com")),
		makeService("alias", external("svc.default.svc.cluster.local")),
		makeService("loop", external("loop.default.svc.cluster.local")),
	} {
		x.setService(s)
	}
	for _, p := range []*v1.Pod{
		makePod("train-0-abc", "10.57.0.2").Host("train-0", "svc").Obj(),
		makePod("train-1-abc", "10.57.0.3").Host("train-1", "svc").Obj(),
		makePod("plain", "10.57.0.4").Obj(),
		makePod("starting", "10.57.0.5").Host("train-3", "svc").NotReady().Obj(),
		makePod("ending", "10.57.0.6").Host("train-4", "svc").Terminating().Obj(),
		makePod("done", "10.57.0.7").Host("train-5", "svc").Phase(v1.PodSucceeded).Obj(),
		makePod("nowhere", "").Host("train-6", "svc").Obj(),
		makePod("other", "10.57.0.8").Label("job-name", "other").Obj(),
		makePod("hosted", "192.0.2.1").Label("job-name", "hosted").Obj(),
	} {
		x.setPod(p)
	}
	return x
}

func newResolver(x *index) *resolver {
	return &resolver{
		index:  x,
		server: netip.MustParseAddr("10.57.0.1"),
		pods:   netip.MustParsePrefix("10.57.0.0/16"),
		outside: func(_ context.Context, q *dns.Msg) *dns.Msg {
			m := new(dns.Msg).SetReply(q)
			m.Answer = []dns.RR{address(q.Question[0].Name, netip.MustParseAddr("203.0.113.9"))}
			return m
		},
	}
}

// told is an answer in words: its code, and its records' types and values.
func told(m *dns.Msg) []string {
	words := []string{dns.RcodeToString[m.Rcode]}
	for _, rr := range m.Answer {
		fields := strings.Split(rr.String(), "\t")
		words = append(words, strings.Join(fields[3:], " "))
	}
	slices.Sort(words[1:])
	return words
}

func TestNames(t *testing.T) {
	const domain = ".default.svc.cluster.local."
	r := newResolver(world())
	no, nothing := []string{"NXDOMAIN"}, []string{"NOERROR"}
	all := []string{"NOERROR", "A 10.57.0.2", "A 10.57.0.3", "A 10.57.0.4"}
	for _, c := range []struct {
		name string
		kind uint16
		want []string
	}{
		{"train-0.svc" + domain, dns.TypeA, []string{"NOERROR", "A 10.57.0.2"}},
		{"Train-1.SVC.default.svc.Cluster.Local.", dns.TypeA, []string{"NOERROR", "A 10.57.0.3"}},
		{"train-0.svc" + domain, dns.TypeAAAA, nothing},
		{"train-2.svc" + domain, dns.TypeA, no},
		{"train-3.svc" + domain, dns.TypeA, no}, // isn't ready
		{"train-4.svc" + domain, dns.TypeA, no}, // is being deleted
		{"train-5.svc" + domain, dns.TypeA, no}, // has ended
		{"train-6.svc" + domain, dns.TypeA, no}, // has no address
		{"train-0.early" + domain, dns.TypeA, no},
		{"10-57-0-4.svc" + domain, dns.TypeA, []string{"NOERROR", "A 10.57.0.4"}},
		{"10-57-0-2.svc" + domain, dns.TypeA, no}, // it has a host name
		{"svc" + domain, dns.TypeA, all},
		{"svc" + domain, dns.TypeANY, all},
		{"early" + domain, dns.TypeA, []string{"NOERROR", "A 10.57.0.2", "A 10.57.0.3", "A 10.57.0.4", "A 10.57.0.5", "A 10.57.0.6"}},
		{"clustered" + domain, dns.TypeA, all},
		{"both" + domain, dns.TypeA, no},
		{"bare" + domain, dns.TypeA, no},
		{"empty" + domain, dns.TypeA, no},
		{"none" + domain, dns.TypeA, no},
		{"a.b.c.svc" + domain, dns.TypeA, no},
		{"_http._tcp.svc" + domain, dns.TypeSRV, []string{
			"NOERROR", "SRV 0 100 8080 10-57-0-4.svc" + domain, "SRV 0 100 8080 train-0.svc" + domain, "SRV 0 100 8080 train-1.svc" + domain,
		}},
		{"_http._tcp.svc" + domain, dns.TypeA, nothing},
		{"_tcp.svc" + domain, dns.TypeA, nothing},
		{"_udp.svc" + domain, dns.TypeA, no},
		{"_http._udp.svc" + domain, dns.TypeSRV, no},
		{"_._tcp.svc" + domain, dns.TypeSRV, no},
		{"out" + domain, dns.TypeA, []string{"NOERROR", "A 203.0.113.9", "CNAME db.example.com."}},
		{"out" + domain, dns.TypeCNAME, []string{"NOERROR", "CNAME db.example.com."}},
		{"alias" + domain, dns.TypeA, []string{"NOERROR", "A 10.57.0.2", "A 10.57.0.3", "A 10.57.0.4", "CNAME svc" + domain}},
		{"loop" + domain, dns.TypeA, []string{"SERVFAIL"}},
		{"default.svc.cluster.local.", dns.TypeA, nothing},
		{"other.svc.cluster.local.", dns.TypeA, no},
		{"svc.other.svc.cluster.local.", dns.TypeA, no},
		{"svc.cluster.local.", dns.TypeA, nothing},
		{"cluster.local.", dns.TypeA, nothing},
		{"cluster.local.", dns.TypeNS, []string{"NOERROR", "NS ns.dns.cluster.local."}},
		{"cluster.local.", dns.TypeSOA, []string{"NOERROR", "SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5"}},
		{"ns.dns.cluster.local.", dns.TypeA, []string{"NOERROR", "A 10.57.0.1"}},
		{"dns-version.cluster.local.", dns.TypeTXT, []string{"NOERROR", `TXT "1.1.0"`}},
		{"a.dns-version.cluster.local.", dns.TypeTXT, no},
		{"whatever.cluster.local.", dns.TypeA, no},
		{"10-57-0-8.default.pod.cluster.local.", dns.TypeA, []string{"NOERROR", "A 10.57.0.8"}},
		{"10-57-0-8.other.pod.cluster.local.", dns.TypeA, no},
		{"10-57-0-99.default.pod.cluster.local.", dns.TypeA, no},
		{"x.default.pod.cluster.local.", dns.TypeA, no},
		{"default.pod.cluster.local.", dns.TypeA, nothing},
		{"pod.cluster.local.", dns.TypeA, nothing},
		{"8.0.57.10.in-addr.arpa.", dns.TypePTR, []string{"NOERROR", "PTR 10-57-0-8.default.pod.cluster.local."}},
		{"2.0.57.10.in-addr.arpa.", dns.TypePTR, []string{"NOERROR", "PTR 10-57-0-2.clustered" + domain, "PTR 10-57-0-2.early" + domain, "PTR train-0.svc" + domain}},
		{"99.0.57.10.in-addr.arpa.", dns.TypePTR, no},
		// The one cluster IP that is routed is its Service's address.
		{"kubernetes" + domain, dns.TypeA, []string{"NOERROR", "A 10.57.255.254"}},
		{"_https._tcp.kubernetes" + domain, dns.TypeSRV, []string{"NOERROR", "SRV 0 100 443 kubernetes" + domain}},
		{"_tcp.kubernetes" + domain, dns.TypeA, []string{"NOERROR"}},
		{"x.kubernetes" + domain, dns.TypeA, no},
		{"254.255.57.10.in-addr.arpa.", dns.TypePTR, []string{"NOERROR", "PTR kubernetes" + domain}},
		{"1.2.0.192.in-addr.arpa.", dns.TypePTR, []string{"NOERROR", "A 203.0.113.9"}}, // the host's, asked outside
		{"57.10.in-addr.arpa.", dns.TypePTR, []string{"NOERROR", "A 203.0.113.9"}},
		{"example.com.", dns.TypeA, []string{"NOERROR", "A 203.0.113.9"}},
		{"notcluster.local.", dns.TypeA, []string{"NOERROR", "A 203.0.113.9"}},
		{"cluster.local.", dns.TypeAXFR, []string{"REFUSED"}},
	} {
		t.Run(fmt.Sprintf("%s %s", c.name, dns.TypeToString[c.kind]), func(t *testing.T) {
			q := new(dns.Msg).SetQuestion(c.name, c.kind)
			m := r.resolve(t.Context(), q)
			if diff := cmp.Diff(c.want, told(m)); diff != "" {
				t.Error(diff)
			}
			if m.Id != q.Id || m.Question[0] != q.Question[0] {
				t.Errorf("the answer %d to %v is for another question", m.Id, m.Question)
			}
			wantShortMemory(t, m)
		})
	}
}

// wantShortMemory checks that whatever is said of the zone is forgotten soon, a
// "no" too.
func wantShortMemory(t *testing.T, m *dns.Msg) {
	t.Helper()
	if !m.Authoritative {
		return
	}
	for _, rr := range slices.Concat(m.Answer, m.Ns, m.Extra) {
		if rr.Header().Ttl != 5 {
			t.Errorf("%s has another TTL than 5 s", rr)
		}
	}
	if strings.HasSuffix(m.Question[0].Name, ".arpa.") || len(m.Answer) > 0 {
		return
	}
	if len(m.Ns) != 1 || m.Ns[0].(*dns.SOA).Minttl != 5 {
		t.Errorf("a no without an SOA that lets it be remembered for 5 s: %v", m.Ns)
	}
}

func TestSRVBringsAddresses(t *testing.T) {
	m := newResolver(world()).resolve(t.Context(), new(dns.Msg).SetQuestion("_http._tcp.svc.default.svc.cluster.local.", dns.TypeSRV))
	if len(m.Extra) != 3 {
		t.Errorf("it brings %v", m.Extra)
	}
}

func TestUnusualQuestions(t *testing.T) {
	r := newResolver(world())
	q := func(change func(*dns.Msg)) *dns.Msg {
		m := new(dns.Msg).SetQuestion("svc.default.svc.cluster.local.", dns.TypeA)
		change(m)
		return m
	}
	for name, c := range map[string]struct {
		q    *dns.Msg
		want int
	}{
		"an update":      {q(func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }), dns.RcodeNotImplemented},
		"no question":    {q(func(m *dns.Msg) { m.Question = nil }), dns.RcodeFormatError},
		"chaos":          {q(func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }), dns.RcodeRefused},
		"a later EDNS":   {q(func(m *dns.Msg) { m.SetEdns0(1232, false).IsEdns0().SetVersion(1) }), dns.RcodeBadVers},
		"EDNS of today":  {q(func(m *dns.Msg) { m.SetEdns0(1232, false) }), dns.RcodeSuccess},
		"without EDNS":   {q(func(*dns.Msg) {}), dns.RcodeSuccess},
		"EDNS and no to": {q(func(m *dns.Msg) { m.SetEdns0(1232, false).Question[0].Name = "x.cluster.local." }), dns.RcodeNameError},
	} {
		t.Run(name, func(t *testing.T) {
			m := r.resolve(t.Context(), c.q)
			if m.Rcode != c.want {
				t.Errorf("answered %s", dns.RcodeToString[m.Rcode])
			}
			if (m.IsEdns0() != nil) != (c.q.IsEdns0() != nil) {
				t.Error("EDNS0 is answered where it wasn't asked for, or not where it was")
			}
			if _, err := m.Pack(); err != nil {
				t.Errorf("it can't be sent: %v", err)
			}
		})
	}
}

// Names follow each change, in whatever order Services and pods come.
func TestNamesFollowChanges(t *testing.T) {
	x := newIndex(netip.Addr{})
	r := newResolver(x)
	want := func(what string, want ...string) {
		t.Helper()
		m := r.resolve(t.Context(), new(dns.Msg).SetQuestion("train-0.svc.default.svc.cluster.local.", dns.TypeA))
		if diff := cmp.Diff(want, told(m)); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
	pod := func() *podBuilder { return makePod("train-0-abc", "10.57.0.2").Host("train-0", "svc") }
	want("nothing", "NXDOMAIN")
	x.setPod(pod().NotReady().Obj())
	x.setService(makeService("svc"))
	want("not ready", "NXDOMAIN")
	x.setPod(pod().Obj())
	want("ready", "NOERROR", "A 10.57.0.2")
	x.setPod(makePod("train-0-def", "10.57.0.9").Host("train-0", "svc").Obj())
	want("a second of the name", "NOERROR", "A 10.57.0.2", "A 10.57.0.9")
	x.setPod(pod().Terminating().Obj())
	want("the first is being deleted", "NOERROR", "A 10.57.0.9")
	x.deletePod(pod().Obj())
	x.setService(makeService("svc", selecting("tier", "x")))
	want("the Service selects by another label", "NOERROR", "A 10.57.0.9")
	x.setPod(makePod("train-0-def", "10.57.0.9").Host("train-0", "svc").Label("tier", "z").Obj())
	want("the label is gone", "NXDOMAIN")
	x.setPod(makePod("train-0-def", "10.57.0.9").Host("train-0", "svc").Obj())
	want("it is back", "NOERROR", "A 10.57.0.9")
	x.deleteService(makeService("svc"))
	want("without the Service", "NXDOMAIN")
	x.deletePod(makePod("train-0-def", "").Obj())
	if n := len(x.services) + len(x.selecting) + len(x.pods) + len(x.byAddr); n != 0 {
		t.Errorf("%d entries stay in the index of nothing", n)
	}
}

// An answer that doesn't fit says so, and what is left of it is whole.
func TestAnswersFitUDP(t *testing.T) {
	x := newIndex(netip.Addr{})
	x.setService(makeService("svc"))
	for i := range 200 {
		x.setPod(makePod(fmt.Sprintf("p%d", i), fmt.Sprintf("10.57.1.%d", i)).Obj())
	}
	r := newResolver(x)
	for size, most := range map[uint16]int{0: dns.MinMsgSize, 600: 600, 65535: payload} {
		q := new(dns.Msg).SetQuestion("svc.default.svc.cluster.local.", dns.TypeA)
		if size > 0 {
			q.SetEdns0(size, false)
		}
		m := r.resolve(t.Context(), q)
		if len(m.Answer) != 200 {
			t.Fatalf("%d addresses, want 200", len(m.Answer))
		}
		m.Compress = true
		fit(m, q)
		if b, err := m.Pack(); err != nil || len(b) > most || !m.Truncated || len(m.Answer) < 20 {
			t.Errorf("asked for %d bytes, got %d with %d addresses, truncated %t, %v", size, len(b), len(m.Answer), m.Truncated, err)
		}
	}
}

func TestAddrOf(t *testing.T) {
	for name, want := range map[string]string{
		"2.0.57.10.in-addr.arpa.":   "10.57.0.2",
		"2.0.57.10.IN-ADDR.ARPA.":   "10.57.0.2",
		"0.57.10.in-addr.arpa.":     "",
		"x.0.57.10.in-addr.arpa.":   "",
		"1.2.0.57.10.in-addr.arpa.": "",
		"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.": "2001:db8::1",
		"8.b.d.0.1.0.0.2.ip6.arpa.": "",
		"example.com.":              "",
	} {
		addr, ok := addrOf(name)
		if got := addr.String(); ok != (want != "") || ok && got != want {
			t.Errorf("%s: %s, %t", name, got, ok)
		}
	}
}
