package network

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

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

func (p PortMapping) String() string {
	host := "*"
	if p.HostIP.IsValid() {
		host = p.HostIP.String()
	}
	return fmt.Sprintf("%s:%d/%d", host, p.HostPort, p.Protocol)
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
