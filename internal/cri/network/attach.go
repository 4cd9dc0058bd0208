package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// podInterface is the name that every pod's interface has inside.
const podInterface = "eth0"

// loopbackIndex is the index of "lo", the first interface of every network
// namespace.
const loopbackIndex = 1

// Pod is the inside of a sandbox's network namespace: a netlink socket in it,
// and a descriptor that names it.
type Pod struct {
	NS   *os.File
	Link *netlink.Handle
}

// OpenPod opens the calling thread's current network namespace, for a caller
// that has just entered it on a locked thread.
func OpenPod() (*Pod, error) {
	ns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("open the sandbox's network namespace: %w", err)
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open netlink in the sandbox: %w", err), ns.Close())
	}
	return &Pod{NS: ns, Link: h}, nil
}

// Close gives the descriptors up; the namespace stays as long as it is pinned.
func (p *Pod) Close() error {
	p.Link.Close()
	return p.NS.Close()
}

// Loopback sets the pod's loopback interface up.
func (p *Pod) Loopback() error {
	lo := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: loopbackIndex}}
	if err := p.Link.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set the sandbox's loopback up: %w", err)
	}
	return nil
}

// Attach joins the pod to the bridge with the address that Reserve gave, and
// opens its host ports. On failure the caller drops the namespace, which takes
// all of it back, and calls Release.
func (m *Manager) Attach(id string, pod *Pod, addr netip.Addr, ports []PortMapping) error {
	if err := pod.Loopback(); err != nil {
		return err
	}
	if err := m.plug(id, pod, addr, len(ports) > 0); err != nil {
		return fmt.Errorf("plug sandbox %s into the bridge %s: %w", id, m.cfg.Bridge, err)
	}
	if err := configure(pod, netip.PrefixFrom(addr, m.ipam.cidr.Bits()), m.Gateway()); err != nil {
		return fmt.Errorf("configure the network of sandbox %s: %w", id, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.addPorts(id, addr, ports)
}

// plug makes the veth, its pod end born inside of the namespace.
func (m *Manager) plug(id string, pod *Pod, addr netip.Addr, hairpin bool) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = VethName(m.cfg.Bridge, id)
	attrs.MTU = m.mtu
	attrs.MasterIndex = m.bridge.Attrs().Index
	attrs.Flags = net.FlagUp
	// By default a veth has a queue for each CPU, each with its own objects in
	// sysfs; a pod's traffic doesn't need them.
	attrs.NumTxQueues, attrs.NumRxQueues = 1, 1
	veth := &netlink.Veth{
		LinkAttrs:        attrs,
		PeerName:         podInterface,
		PeerNamespace:    netlink.NsFd(int(pod.NS.Fd())),
		PeerHardwareAddr: macOf(addr),
		PeerMTU:          uint32(m.mtu),
		PeerTxQLen:       -1,
		PeerNumTxQueues:  1,
		PeerNumRxQueues:  1,
	}
	if err := m.host.LinkAdd(veth); err != nil {
		return err
	}
	if !hairpin {
		return nil
	}
	// A pod that calls its own host port gets its packet back by the port it
	// came from.
	return m.host.LinkSetHairpin(veth, true)
}

func configure(pod *Pod, addr netip.Prefix, gateway netip.Addr) error {
	eth, err := pod.Link.LinkByName(podInterface)
	if err != nil {
		return err
	}
	if err := pod.Link.AddrAdd(eth, &netlink.Addr{IPNet: ipNet(addr)}); err != nil {
		return fmt.Errorf("address %s: %w", addr, err)
	}
	if err := pod.Link.LinkSetUp(eth); err != nil {
		return fmt.Errorf("set it up: %w", err)
	}
	route := &netlink.Route{LinkIndex: eth.Attrs().Index, Gw: gateway.AsSlice()}
	if err := pod.Link.RouteAdd(route); err != nil {
		return fmt.Errorf("default route by %s: %w", gateway, err)
	}
	return nil
}
