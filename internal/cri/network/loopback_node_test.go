//go:build node

package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

var localhost = netip.MustParseAddr("127.0.0.1")

// The host reaches a host port at its loopback, as long as it is open.
func TestHostPortAtLoopback(t *testing.T) {
	h := newHost(t)
	m := h.start()
	h.addPod(m, "pod-a", PortMapping{Protocol: unix.IPPROTO_TCP, HostPort: 8080, ContainerPort: 80},
		PortMapping{Protocol: unix.IPPROTO_TCP, HostIP: localhost, HostPort: 8081, ContainerPort: 80})
	h.serve("pod-a", 80)
	for _, port := range []uint16{8080, 8081} {
		if _, err := ask(localhost, port); err != nil {
			t.Errorf("host → 127.0.0.1:%d: %v", port, err)
		}
	}
	if _, err := ask(m.Gateway(), 8081); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("a host port of 127.0.0.1 alone, at another address: %v, want it refused", err)
	}
	h.removePod(m, "pod-a")
	if _, err := ask(localhost, 8080); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("host port after its pod: %v, want it refused", err)
	}
	b, err := os.ReadFile("/proc/sys/net/ipv4/conf/" + h.cfg.Bridge + "/route_localnet")
	if err != nil || string(b) != "0\n" {
		t.Errorf("route_localnet without a host port: %q, %v", b, err)
	}
}

// What listens on the host's loopback alone no pod reaches, though host ports
// are open and the pod sends its packets by the bridge (CVE-2020-8558).
func TestPodsDoNotReachTheHostsLoopback(t *testing.T) {
	h := newHost(t)
	m := h.start()
	h.addPod(m, "pod-a", PortMapping{Protocol: unix.IPPROTO_TCP, HostPort: 8080, ContainerPort: 80})
	evil := h.addPod(m, "evil")
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	err = h.dir.Run("evil", func() error {
		if err := leadLoopbackOut(evil, m.Gateway()); err != nil {
			return fmt.Errorf("lead the pod's loopback out: %w", err)
		}
		c, err := net.DialTimeout("tcp4", netip.AddrPortFrom(localhost, uint16(port)).String(), 2*time.Second)
		if err == nil {
			c.Close()
		}
		if !os.IsTimeout(err) {
			t.Errorf("pod → the host's 127.0.0.1:%d: %v, want no answer", port, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// leadLoopbackOut sends what the pod sends to 127.0.0.1 to the host.
func leadLoopbackOut(pod, gateway netip.Addr) error {
	if err := os.WriteFile("/proc/sys/net/ipv4/conf/all/route_localnet", []byte("1"), 0); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	eth0, err := netlink.LinkByName(podInterface)
	if err != nil {
		return err
	}
	addrs, err := netlink.AddrList(lo, netlink.FAMILY_V4)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		if err := netlink.AddrDel(lo, &a); err != nil {
			return err
		}
	}
	return netlink.RouteAdd(&netlink.Route{
		LinkIndex: eth0.Attrs().Index, Gw: gateway.AsSlice(), Src: pod.AsSlice(),
		Dst: &net.IPNet{IP: localhost.AsSlice(), Mask: net.CIDRMask(32, 32)},
	})
}
