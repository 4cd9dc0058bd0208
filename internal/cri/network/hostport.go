package network

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
)

// PortMapping opens a port of the host to a pod
// (spec.containers[].ports[].hostPort).
type PortMapping struct {
	// Protocol is the IP protocol's number: 6 TCP, 17 UDP, 132 SCTP.
	Protocol uint8
	// HostIP restricts the mapping to one address of the host's; the zero
	// value means all of them, 127.0.0.1 among them.
	HostIP        netip.Addr
	HostPort      uint16
	ContainerPort uint16
}

// String writes it as kubectl does: 80/TCP, or 127.0.0.1:80/TCP.
func (p PortMapping) String() string {
	at := strconv.Itoa(int(p.HostPort))
	if p.HostIP.IsValid() {
		at = netip.AddrPortFrom(p.HostIP, p.HostPort).String()
	}
	return at + "/" + protocolName(p.Protocol)
}

func protocolName(number uint8) string {
	switch number {
	case unix.IPPROTO_TCP:
		return "TCP"
	case unix.IPPROTO_UDP:
		return "UDP"
	case unix.IPPROTO_SCTP:
		return "SCTP"
	}
	return strconv.Itoa(int(number))
}

// collides says whether two mappings want the same packets.
func (p PortMapping) collides(o PortMapping) bool {
	return p.Protocol == o.Protocol && p.HostPort == o.HostPort &&
		(!p.HostIP.IsValid() || !o.HostIP.IsValid() || p.HostIP == o.HostIP)
}

// addPorts opens a sandbox's host ports. The caller holds the lock.
func (m *Manager) addPorts(id string, addr netip.Addr, ports []PortMapping) error {
	if len(ports) == 0 {
		return nil
	}
	for other, theirs := range m.ports {
		for _, t := range theirs {
			for _, p := range ports {
				if other != id && p.collides(t) {
					return fmt.Errorf("host port %s of sandbox %s is taken by sandbox %s", p, id, other)
				}
			}
		}
	}
	if err := m.nft.addPorts(addr, ports); err != nil {
		return fmt.Errorf("open the host ports of sandbox %s: %w", id, err)
	}
	m.ports[id] = ports
	m.routeLoopback()
	return nil
}

// routeLoopback lets packets between the host's loopback and the bridge pass as
// long as a host port is open, so that the host reaches it at 127.0.0.1, too; the
// firewall's guard keeps pods from making use of it. Where the kernel's settings
// can't be written, as in some containers, host ports are open at the host's
// other addresses only. The caller holds the lock.
func (m *Manager) routeLoopback() {
	open, value := len(m.ports) > 0, "0"
	if m.loopback == open {
		return
	}
	if m.loopback = open; open {
		value = "1"
	}
	path := filepath.Join("/proc/sys/net/ipv4/conf", m.cfg.Bridge, "route_localnet")
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		klog.Background().Info("Host ports can't be reached at 127.0.0.1, only at the host's other addresses", "reason", err.Error())
	}
}
