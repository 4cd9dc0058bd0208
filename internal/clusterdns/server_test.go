package clusterdns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
)

var anyPort = netip.MustParseAddrPort("127.0.0.1:0")

func listen(t *testing.T) *Sockets {
	t.Helper()
	s, err := Listen(t.Context(), anyPort)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// upstream is one of the host's resolvers. It answers by TCP, too, and counts
// what it is asked.
func upstream(t *testing.T, answer func(w dns.ResponseWriter, q *dns.Msg)) (string, *atomic.Int32) {
	t.Helper()
	s, asked := listen(t), &atomic.Int32{}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		asked.Add(1)
		answer(w, q)
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- serve(ctx, &dns.Server{PacketConn: s.udp, Handler: handler}) }()
	go func() { ended <- serve(ctx, &dns.Server{Listener: s.tcp, Handler: handler}) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, <-ended); err != nil {
			t.Error(err)
		}
	})
	return s.Addr().String(), asked
}

func write(t *testing.T, w dns.ResponseWriter, m *dns.Msg) {
	if err := w.WriteMsg(m); err != nil {
		t.Error(err)
	}
}

// answering has n addresses for all names; by UDP it tells only that there are
// more than fit.
func answering(t *testing.T, n int) func(w dns.ResponseWriter, q *dns.Msg) {
	return func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		m.Authoritative = true
		for i := range n {
			m.Answer = append(m.Answer, address(q.Question[0].Name, netip.AddrFrom4([4]byte{203, 0, 113, byte(i)})))
		}
		if w.RemoteAddr().Network() == "udp" {
			fit(m, q)
		}
		write(t, w, m)
	}
}

func failing(t *testing.T, code int) func(w dns.ResponseWriter, q *dns.Msg) {
	return func(w dns.ResponseWriter, q *dns.Msg) { write(t, w, new(dns.Msg).SetRcode(q, code)) }
}

// forwarding is a forwarder that asks those servers. A resolv.conf can't name
// ports, so that they are given to it directly.
func forwarding(t *testing.T, servers ...string) *forwarder {
	t.Helper()
	f := newForwarder(resolvConf(t, "# nothing"), anyPort)
	if _, err := f.upstream(t.Context()); err == nil {
		t.Fatal("a resolv.conf without a server gave some")
	}
	f.servers = servers
	return f
}

func resolvConf(t *testing.T, lines ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestForward(t *testing.T) {
	q := new(dns.Msg).SetQuestion("example.com.", dns.TypeA)
	good, _ := upstream(t, answering(t, 1))
	large, _ := upstream(t, answering(t, 200))
	denying, _ := upstream(t, failing(t, dns.RcodeNameError))
	broken, _ := upstream(t, failing(t, dns.RcodeServerFailure))
	refusing, _ := upstream(t, failing(t, dns.RcodeRefused))
	closed := listen(t)
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	absent := closed.Addr().String()
	for name, c := range map[string]struct {
		servers []string
		code    int
		answers int
	}{
		"one":                          {[]string{good}, dns.RcodeSuccess, 1},
		"more than UDP takes":          {[]string{large}, dns.RcodeSuccess, 200},
		"the first isn't there":        {[]string{absent, good}, dns.RcodeSuccess, 1},
		"the first fails":              {[]string{broken, refusing, good}, dns.RcodeSuccess, 1},
		"a no is an answer":            {[]string{denying, good}, dns.RcodeNameError, 0},
		"all fail, the last's is told": {[]string{broken, refusing}, dns.RcodeRefused, 0},
		"none is there":                {[]string{absent}, dns.RcodeServerFailure, 0},
		"none is named":                {nil, dns.RcodeServerFailure, 0},
	} {
		t.Run(name, func(t *testing.T) {
			a := forwarding(t, c.servers...).answer(t.Context(), q)
			if a.Rcode != c.code || len(a.Answer) != c.answers || a.Id != q.Id || a.Question[0] != q.Question[0] || a.Authoritative {
				t.Errorf("answered %v", a)
			}
			if a.IsEdns0() != nil {
				t.Error("another server's EDNS0 was handed on")
			}
		})
	}
}

// A server that never answers holds a question's place until it is given up.
func TestForwardedAtOnceAreBounded(t *testing.T) {
	q := new(dns.Msg).SetQuestion("example.com.", dns.TypeA)
	arrived := make(chan struct{})
	silent, _ := upstream(t, func(dns.ResponseWriter, *dns.Msg) { arrived <- struct{}{} })
	good, asked := upstream(t, answering(t, 1))
	f := forwarding(t, silent)
	f.slots = make(chan struct{}, 1)
	ctx, giveUp := context.WithCancel(t.Context())
	given := make(chan *dns.Msg)
	go func() { given <- f.answer(ctx, q) }()
	<-arrived
	f.mu.Lock()
	f.servers = []string{good}
	f.mu.Unlock()
	if a := f.answer(t.Context(), q); a.Rcode != dns.RcodeServerFailure || asked.Load() != 0 {
		t.Errorf("one too many was answered %s", dns.RcodeToString[a.Rcode])
	}
	giveUp()
	if a := <-given; a.Rcode != dns.RcodeServerFailure {
		t.Errorf("the one that was given up was answered %s", dns.RcodeToString[a.Rcode])
	}
	if a := f.answer(t.Context(), q); a.Rcode != dns.RcodeSuccess {
		t.Errorf("with its place free again the next was answered %s", dns.RcodeToString[a.Rcode])
	}
}

func TestHostsServers(t *testing.T) {
	self := netip.MustParseAddrPort("10.57.0.1:53")
	path := resolvConf(t, "search example.com", "nameserver 10.57.0.1", "nameserver 192.0.2.53", "nameserver ::1")
	f := newForwarder(path, self)
	want := func(servers ...string) {
		t.Helper()
		got, err := f.upstream(t.Context())
		if strings.Join(got, " ") != strings.Join(servers, " ") || (err != nil) != (len(servers) == 0) {
			t.Errorf("servers %q, %v; want %q", got, err, servers)
		}
	}
	want("192.0.2.53:53", "[::1]:53") // not itself
	if err := os.WriteFile(path+".new", []byte("nameserver 127.0.0.53\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	want("127.0.0.53:53")
	if err := os.WriteFile(path, []byte("nameserver 10.57.0.1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	want()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	want()
}

// start runs a server on loopback over an API with the objects.
func start(t *testing.T, pods netip.Prefix, objects ...runtime.Object) (*Sockets, *fake.Clientset) {
	t.Helper()
	client := fake.NewClientset(objects...)
	factory := informers.NewSharedInformerFactory(client, 0)
	sockets := listen(t)
	s, err := New(Config{
		Services: factory.Core().V1().Services(), Pods: factory.Core().V1().Pods(),
		Sockets: sockets, PodRange: pods, ResolvConf: resolvConf(t, "# none"),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("it ended with %v", err)
		}
		factory.Shutdown()
	})
	factory.StartWithContext(ctx)
	return sockets, client
}

func ask(t *testing.T, network string, at *Sockets, name string) (*dns.Msg, error) {
	t.Helper()
	client := &dns.Client{Net: network, Timeout: 10 * time.Second}
	m, _, err := client.Exchange(new(dns.Msg).SetQuestion(name, dns.TypeA), at.Addr().String())
	return m, err
}

// What is asked before all is known waits for its answer, by both protocols.
func TestServer(t *testing.T) {
	at, client := start(t, netip.MustParsePrefix("127.0.0.0/8"), makeService("svc"), makePod("train-0-abc", "10.57.0.2").Host("train-0", "svc").Obj())
	for _, network := range []string{"udp", "tcp"} {
		m, err := ask(t, network, at, "train-0.svc.default.svc.cluster.local.")
		if err != nil || fmt.Sprint(told(m)) != "[NOERROR A 10.57.0.2]" {
			t.Errorf("by %s: %v, %v", network, m, err)
		}
		if m, err := ask(t, network, at, "example.com."); err != nil || m.Rcode != dns.RcodeServerFailure {
			t.Errorf("by %s without a resolver of the host's: %v, %v", network, m, err)
		}
	}
	if err := client.CoreV1().Pods("default").Delete(t.Context(), "train-0-abc", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for gone := false; !gone && t.Context().Err() == nil; {
		m, err := ask(t, "udp", at, "train-0.svc.default.svc.cluster.local.")
		if err != nil {
			t.Fatal(err)
		}
		gone = m.Rcode == dns.RcodeNameError
	}
}

// Who isn't a pod gets no answer.
func TestOthersGetNoAnswer(t *testing.T) {
	at, _ := start(t, netip.MustParsePrefix("10.57.0.0/16"), makeService("svc"))
	if m, err := ask(t, "tcp", at, "cluster.local."); err == nil {
		t.Errorf("it was answered: %v", m)
	}
	s := &Server{config: Config{PodRange: netip.MustParsePrefix("10.57.0.0/16")}}
	for from, want := range map[string]bool{"10.57.0.9:4711": true, "[::ffff:10.57.0.9]:4711": true, "192.0.2.1:4711": false, "[fe80::1%eth0]:4711": false} {
		if got := s.mayAsk(&net.UDPAddr{IP: netip.MustParseAddrPort(from).Addr().AsSlice(), Port: 4711}); got != want {
			t.Errorf("%s may ask: %t", from, got)
		}
	}
}

// The error of a port that is taken says by whom, and what to do.
func TestPortTaken(t *testing.T) {
	at := listen(t)
	_, err := Listen(t.Context(), at.Addr())
	if !errors.Is(err, unix.EADDRINUSE) {
		t.Fatalf("listen where somebody does: %v", err)
	}
	for _, words := range []string{at.Addr().String(), "clusterdns.test (pid " + fmt.Sprint(os.Getpid()), "--cluster-dns=false"} {
		if !strings.Contains(err.Error(), words) {
			t.Errorf("%q isn't in %q", words, err)
		}
	}
	// A server on all addresses is in the way by UDP alone, too.
	udp, err := net.ListenPacket("udp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	taken := netip.AddrPortFrom(anyPort.Addr(), udp.LocalAddr().(*net.UDPAddr).AddrPort().Port())
	if _, err := Listen(t.Context(), taken); err == nil || !strings.Contains(err.Error(), "by UDP") {
		t.Errorf("listen where somebody has all addresses: %v", err)
	}
}

func BenchmarkPodChange(b *testing.B) {
	x := newIndex(netip.Addr{})
	for i := range 1000 {
		x.setService(makeService(fmt.Sprintf("s%d", i), selecting("job-name", fmt.Sprintf("j%d", i))))
	}
	pods := make([]*v1.Pod, 1000)
	for i := range pods {
		pods[i] = makePod(fmt.Sprintf("p%d", i), fmt.Sprintf("10.57.%d.%d", i/250, i%250)).Label("job-name", fmt.Sprintf("j%d", i)).Obj()
	}
	for i := 0; b.Loop(); i++ {
		x.setPod(pods[i%len(pods)])
	}
}

func BenchmarkQuestion(b *testing.B) {
	r := newResolver(world())
	q := new(dns.Msg).SetQuestion("train-0.svc.default.svc.cluster.local.", dns.TypeA)
	for b.Loop() {
		r.resolve(b.Context(), q)
	}
}
