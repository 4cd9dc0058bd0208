package network

import (
	"fmt"
	"net/netip"
)

// PortMapping opens a port of the host to a pod
// (spec.containers[].ports[].hostPort).
type PortMapping struct {
	// Protocol is the IP protocol's number: 6 TCP, 17 UDP, 132 SCTP.
	Protocol uint8
	// HostIP restricts the mapping to one address of the host's; the zero
	// value means all of them, except loopback.
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
	return nil
}
