//go:build node

package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"errand.dev/errand/internal/cri/namespace"
	"errand.dev/errand/internal/slowness"
)

// host is a machine of its own: the test's thread lives in a fresh network
// namespace, so that no bridge or table of the real host is touched.
type host struct {
	t   testing.TB
	dir *namespace.Dir
	cfg Config
}

func newHost(t testing.TB) *host {
	t.Helper()
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("make a network namespace (this test needs root): %v", err)
	}
	pod, err := OpenPod()
	if err != nil {
		t.Fatal(err)
	}
	defer pod.Close()
	if err := pod.Loopback(); err != nil {
		t.Fatal(err)
	}
	dir, err := namespace.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return &host{t: t, dir: dir, cfg: Config{Bridge: "er-test", Table: "errand-test", StateDir: t.TempDir()}}
}

func (h *host) start() *Manager {
	h.t.Helper()
	m, err := New(context.Background(), h.cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	return m
}

// addPod makes a sandbox's network from nothing.
func (h *host) addPod(m *Manager, id string, ports ...PortMapping) netip.Addr {
	h.t.Helper()
	addr, err := m.Reserve(id)
	if err != nil {
		h.t.Fatal(err)
	}
	var pod *Pod
	spec := namespace.Spec{Kinds: []namespace.Kind{namespace.Net}, Inside: func() (err error) {
		pod, err = OpenPod()
		return err
	}}
	if err := h.dir.Create(id, spec); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		if err := h.dir.Remove(id); err != nil {
			h.t.Error(err)
		}
	})
	defer pod.Close()
	if err := m.Attach(id, pod, addr, ports); err != nil {
		h.t.Fatal(err)
	}
	return addr
}

func (h *host) removePod(m *Manager, id string) {
	h.t.Helper()
	if err := h.dir.Remove(id); err != nil {
		h.t.Error(err)
	}
	if err := m.Release(id); err != nil {
		h.t.Error(err)
	}
}

// serve answers each connection in the pod with the caller's address.
func (h *host) serve(id string, port uint16) {
	h.t.Helper()
	err := h.dir.Run(id, func() error {
		l, err := net.Listen("tcp4", fmt.Sprintf(":%d", port))
		if err != nil {
			return err
		}
		h.t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				fmt.Fprint(c, c.RemoteAddr())
				c.Close()
			}
		}()
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
}

// ask connects from the thread's namespace and returns what the server says.
func ask(addr netip.Addr, port uint16) (string, error) {
	c, err := net.DialTimeout("tcp4", netip.AddrPortFrom(addr, port).String(), slowness.Times(2*time.Second))
	if err != nil {
		return "", err
	}
	defer c.Close()
	b := make([]byte, 64)
	n, err := c.Read(b)
	return string(b[:n]), err
}

func TestPodsReachHostAndEachOther(t *testing.T) {
	h := newHost(t)
	m := h.start()
	a, b := h.addPod(m, "pod-a"), h.addPod(m, "pod-b")
	h.serve("pod-a", 80)
	if got, err := ask(a, 80); err != nil || !strings.HasPrefix(got, m.Gateway().String()+":") {
		t.Errorf("host → pod a: %q, %v; want to be seen as %s", got, err, m.Gateway())
	}
	err := h.dir.Run("pod-b", func() error {
		got, err := ask(a, 80)
		if err == nil && !strings.HasPrefix(got, b.String()+":") {
			err = fmt.Errorf("pod b was seen as %s, want %s", got, b)
		}
		return err
	})
	if err != nil {
		t.Errorf("pod b → pod a: %v", err)
	}
}

func TestHostPort(t *testing.T) {
	h := newHost(t)
	m := h.start()
	pm := PortMapping{Protocol: unix.IPPROTO_TCP, HostPort: 8080, ContainerPort: 80}
	h.addPod(m, "pod-a", pm)
	h.serve("pod-a", 80)
	h.addPod(m, "pod-b")
	if _, err := ask(m.Gateway(), 8080); err != nil {
		t.Errorf("host → its own port 8080: %v", err)
	}
	for _, from := range []string{"pod-b", "pod-a"} {
		err := h.dir.Run(from, func() error { _, err := ask(m.Gateway(), 8080); return err })
		if err != nil {
			t.Errorf("%s → host port 8080: %v", from, err)
		}
	}
	addr, err := m.Reserve("pod-c")
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Restore("pod-c", addr, []PortMapping{pm}); err == nil {
		t.Error("one host port was given to two pods")
	}
	h.removePod(m, "pod-a")
	if _, err := ask(m.Gateway(), 8080); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("host port after its pod: %v, want it refused", err)
	}
}

func TestHostPortOfOneAddress(t *testing.T) {
	h := newHost(t)
	m := h.start()
	h.addPod(m, "pod-a", PortMapping{Protocol: unix.IPPROTO_TCP, HostIP: m.Gateway(), HostPort: 8080, ContainerPort: 80})
	h.serve("pod-a", 80)
	if _, err := ask(m.Gateway(), 8080); err != nil {
		t.Errorf("host port on its address: %v", err)
	}
}

func TestRestartTakesOver(t *testing.T) {
	h := newHost(t)
	first := h.start()
	pm := PortMapping{Protocol: unix.IPPROTO_TCP, HostPort: 8080, ContainerPort: 80}
	a := h.addPod(first, "pod-a", pm)
	h.serve("pod-a", 80)
	first.Close()
	second := h.start()
	if err := second.Restore("pod-a", a, []PortMapping{pm}); err != nil {
		t.Fatal(err)
	}
	if _, err := ask(second.Gateway(), 8080); err != nil {
		t.Errorf("host port after a restart: %v", err)
	}
	if b := h.addPod(second, "pod-b"); b == a {
		t.Errorf("%s was given out twice", b)
	}
}

func TestDestroyLeavesNothing(t *testing.T) {
	h := newHost(t)
	dropForwarding(t)
	m := h.start()
	h.addPod(m, "pod-a")
	h.removePod(m, "pod-a")
	if n := len(forwardRules(t)); n != 2 {
		t.Errorf("%d rules in the host's dropping chain, want 2", n)
	}
	if err := m.Destroy(); err != nil {
		t.Fatal(err)
	}
	if n := len(forwardRules(t)); n != 0 {
		t.Errorf("%d rules are left in the host's chain", n)
	}
	if _, err := net.InterfaceByName(h.cfg.Bridge); err == nil {
		t.Error("the bridge is left")
	}
	c := &nftables.Conn{}
	if _, err := c.ListTableOfFamily(h.cfg.Table, nftables.TableFamilyIPv4); err == nil {
		t.Error("the nftables table is left")
	}
}

// neighbour is a machine with a cable to the host, and the host as its router.
func (h *host) neighbour(m *Manager) {
	h.t.Helper()
	var pod *Pod
	spec := namespace.Spec{Kinds: []namespace.Kind{namespace.Net}, Inside: func() (err error) {
		pod, err = OpenPod()
		return err
	}}
	if err := h.dir.Create("lan", spec); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		if err := h.dir.Remove("lan"); err != nil {
			h.t.Error(err)
		}
	})
	defer pod.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Flags = "lan0", net.FlagUp
	cable := &netlink.Veth{LinkAttrs: attrs, PeerName: podInterface, PeerNamespace: netlink.NsFd(int(pod.NS.Fd()))}
	err := errors.Join(
		m.host.LinkAdd(cable),
		m.host.AddrAdd(cable, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix("192.0.2.1/24"))}),
		configure(pod, netip.MustParsePrefix("192.0.2.2/24"), netip.MustParseAddr("192.0.2.1")),
	)
	if err != nil {
		h.t.Fatal(err)
	}
}

// A host that drops by default has its neighbours kept from its pods, but for
// host ports; and what pods call answers.
func TestNeighboursReachOnlyHostPorts(t *testing.T) {
	for name, chain := range map[string]*nftables.Chain{"iptables": hostForward, "nft": nftForward} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			drop(t, chain)
			m := h.start()
			h.neighbour(m)
			a := h.addPod(m, "pod-a", PortMapping{Protocol: unix.IPPROTO_TCP, HostPort: 8080, ContainerPort: 80})
			h.serve("pod-a", 80)
			h.serve("lan", 90)
			err := h.dir.Run("lan", func() error {
				if _, err := ask(netip.MustParseAddr("192.0.2.1"), 8080); err != nil {
					return fmt.Errorf("neighbour → host port: %w", err)
				}
				if c, err := net.DialTimeout("tcp4", netip.AddrPortFrom(a, 80).String(), 200*time.Millisecond); err == nil {
					return errors.Join(errors.New("neighbour → pod: it is let through"), c.Close())
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
			err = h.dir.Run("pod-a", func() error { _, err := ask(netip.MustParseAddr("192.0.2.2"), 90); return err })
			if err != nil {
				t.Errorf("pod → neighbour: %v", err)
			}
		})
	}
}

// A chain that has stopped dropping since is nobody's to be forgotten.
func TestNoRuleStaysInAChainThatStoppedDropping(t *testing.T) {
	h := newHost(t)
	dropForwarding(t)
	m := h.start()
	if len(forwardRules(t)) == 0 {
		t.Fatal("no rule was put into the host's dropping chain")
	}
	setPolicy(t, hostForward, nftables.ChainPolicyAccept)
	left, err := AcceptRules(h.cfg.Table)
	if err != nil || len(left) != 1 {
		t.Errorf("found %q, %v", left, err)
	}
	if err := m.Destroy(); err != nil {
		t.Fatal(err)
	}
	if n := len(forwardRules(t)); n != 0 {
		t.Errorf("%d rules are left in the host's chain", n)
	}
}

// What another build has put there reads otherwise.
func TestAcceptRulesAreReplacedAtStart(t *testing.T) {
	h := newHost(t)
	dropForwarding(t)
	c := &nftables.Conn{}
	c.InsertRule(&nftables.Rule{
		Table: hostForward.Table, Chain: hostForward, Exprs: accept(iface(expr.MetaKeyOIFNAME, h.cfg.Bridge)), UserData: mark(h.cfg.Table),
	})
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		h.start().Close()
		if n := len(forwardRules(t)); n != 2 {
			t.Errorf("%d rules in the host's chain, want 2", n)
		}
	}
}

// run runs the manager in the test's network namespace until the test ends.
func (h *host) run(m *Manager) {
	h.t.Helper()
	ns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
		ended <- errors.Join(err, m.Run(ctx))
	}()
	h.t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, ns.Close()); err != nil {
			h.t.Error(err)
		}
	})
}

// changes are those of the namespace's firewall from now on.
func changes(t *testing.T) <-chan *nftables.MonitorEvents {
	t.Helper()
	c, err := nftables.New(nftables.AsLasting())
	if err != nil {
		t.Fatal(err)
	}
	ch, err := c.AddGenerationalMonitor(nftables.NewMonitor(nftables.WithMonitorEventBuffer(1000)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.CloseLasting() })
	return ch
}

// until takes changes in until the condition holds.
func until(t *testing.T, ch <-chan *nftables.MonitorEvents, what string, holds func() bool) {
	t.Helper()
	late := time.After(slowness.Times(20 * time.Second))
	for !holds() {
		select {
		case <-ch:
		case <-late:
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func change(t *testing.T, do func(c *nftables.Conn)) {
	t.Helper()
	c := &nftables.Conn{}
	do(c)
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
}

// The firewall is loaded anew, as on Debian: all of it goes at once.
func TestFirewallIsRestored(t *testing.T) {
	h := newHost(t)
	dropForwarding(t)
	m := h.start()
	h.addPod(m, "pod-a",
		PortMapping{Protocol: unix.IPPROTO_TCP, HostPort: 8080, ContainerPort: 80},
		PortMapping{Protocol: unix.IPPROTO_TCP, HostPort: 8081, ContainerPort: 80, HostIP: m.Gateway()})
	h.serve("pod-a", 80)
	h.run(m)
	ch := changes(t)
	reach := func() bool {
		_, any := ask(m.Gateway(), 8080)
		_, one := ask(m.Gateway(), 8081)
		return any == nil && one == nil
	}
	for _, chain := range []*nftables.Chain{hostForward, nftForward} {
		change(t, func(c *nftables.Conn) { c.FlushRuleset() })
		drop(t, chain)
		until(t, ch, "host ports after a flush", reach)
		until(t, ch, "rules in the new chain", func() bool { left, err := AcceptRules(h.cfg.Table); return err == nil && len(left) == 1 })
	}
	setPolicy(t, nftForward, nftables.ChainPolicyAccept)
	until(t, ch, "no rules in a chain that stopped dropping", func() bool { left, err := AcceptRules(h.cfg.Table); return err == nil && len(left) == 0 })
	change(t, func(c *nftables.Conn) { c.FlushSet(m.nft.ports) })
	until(t, ch, "host ports after their map was emptied", reach)
}

// What errand writes makes it look once more, and no more than that.
func TestOwnChangesDoNotKeepItGoing(t *testing.T) {
	h := newHost(t)
	dropForwarding(t)
	m := h.start()
	pm := PortMapping{Protocol: unix.IPPROTO_TCP, HostPort: 8080, ContainerPort: 80}
	h.addPod(m, "pod-a", pm)
	change(t, func(c *nftables.Conn) { c.DelTable(m.nft.table) })
	ch := changes(t)
	for range 3 {
		if err := m.restore(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	change(t, func(c *nftables.Conn) { c.AddTable(&nftables.Table{Name: "end", Family: nftables.TableFamilyIPv4}) })
	n := 0
	for c := range ch {
		if table, ok := c.Changes[0].Data.(*nftables.Table); ok && table.Name == "end" {
			break
		}
		n++
	}
	if n != 1 {
		t.Errorf("it took %d transactions to write the table, want 1", n)
	}
}

var nftForward = &nftables.Chain{
	Name: "forward", Table: &nftables.Table{Name: "filter", Family: nftables.TableFamilyINet},
	Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
}

var hostForward = &nftables.Chain{
	Name: "FORWARD", Table: &nftables.Table{Name: "filter", Family: nftables.TableFamilyIPv4},
	Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
}

// dropForwarding sets the namespace up as Docker does a host.
func dropForwarding(t *testing.T) { drop(t, hostForward) }

func drop(t *testing.T, chain *nftables.Chain) { setPolicy(t, chain, nftables.ChainPolicyDrop) }

// setPolicy sets that of a chain, which is made where it is missing.
func setPolicy(t *testing.T, chain *nftables.Chain, policy nftables.ChainPolicy) {
	t.Helper()
	c := &nftables.Conn{}
	c.AddTable(chain.Table)
	changed := *chain
	changed.Policy = &policy
	c.AddChain(&changed)
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
}

func forwardRules(t *testing.T) []*nftables.Rule {
	t.Helper()
	rules, err := (&nftables.Conn{}).GetRules(hostForward.Table, hostForward)
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

func BenchmarkPod(b *testing.B) {
	h := newHost(b)
	m := h.start()
	var before, after unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &before)
	for i := range b.N {
		id := fmt.Sprintf("%08x", i)
		h.addPod(m, id)
		h.removePod(m, id)
	}
	_ = unix.Getrusage(unix.RUSAGE_SELF, &after)
	cpu := (after.Utime.Nano() + after.Stime.Nano()) - (before.Utime.Nano() + before.Stime.Nano())
	b.ReportMetric(float64(cpu)/float64(b.N)/1e6, "cpu-ms/pod")
}
