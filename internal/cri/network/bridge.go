package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// existingBridge returns the bridge of that name with the range it serves, or
// nil where there is none.
func existingBridge(h *netlink.Handle, name string) (netlink.Link, netip.Prefix, error) {
	link, err := h.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil, netip.Prefix{}, nil
	}
	if err != nil {
		return nil, netip.Prefix{}, fmt.Errorf("look for the bridge %s: %w", name, err)
	}
	if link.Type() != "bridge" {
		return nil, netip.Prefix{}, fmt.Errorf("the network interface %s exists and is a %s, not a bridge: remove it, or choose another name", name, link.Type())
	}
	addrs, err := h.AddrList(link, netlink.FAMILY_V4)
	if err != nil {
		return nil, netip.Prefix{}, fmt.Errorf("list the addresses of the bridge %s: %w", name, err)
	}
	for _, a := range addrs {
		if p, ok := prefixOf(a.IPNet); ok && !p.IsSingleIP() { // not the API's address
			return link, p, nil
		}
	}
	return link, netip.Prefix{}, nil
}

// removeBridge removes the bridge, if it is there.
func removeBridge(name string) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer h.Close()
	link, _, err := existingBridge(h, name)
	if err != nil || link == nil {
		return err
	}
	if err := h.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove the bridge %s: %w", name, err)
	}
	return nil
}

// ensureBridge makes the bridge with the gateway's address, up.
func ensureBridge(h *netlink.Handle, name string, gateway netip.Prefix, mtu int) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.Flags = name, mtu, net.FlagUp
	// A bridge without an address of its own takes the lowest of its ports',
	// and would change it as pods come and go.
	attrs.HardwareAddr = macOf(gateway.Addr())
	err := h.LinkAdd(&netlink.Bridge{LinkAttrs: attrs})
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("make the bridge %s: %w", name, err)
	}
	link, err := h.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("find the bridge %s: %w", name, err)
	}
	if err := h.AddrReplace(link, &netlink.Addr{IPNet: ipNet(gateway)}); err != nil {
		return nil, fmt.Errorf("give the bridge %s its address %s: %w", name, gateway, err)
	}
	if err := h.LinkSetUp(link); err != nil {
		return nil, fmt.Errorf("set the bridge %s up: %w", name, err)
	}
	return link, nil
}

// ensureAddress gives the bridge a further address, or takes it away.
func ensureAddress(h *netlink.Handle, bridge netlink.Link, addr netip.Addr, there bool) error {
	a := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(addr, addr.BitLen()))}
	if there {
		if err := h.AddrReplace(bridge, a); err != nil {
			return fmt.Errorf("give the bridge %s the address %s: %w", bridge.Attrs().Name, addr, err)
		}
		return nil
	}
	if err := h.AddrDel(bridge, a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("take the address %s off the bridge %s: %w", addr, bridge.Attrs().Name, err)
	}
	return nil
}

// uplinkMTU is the MTU of the interface that the default route leaves by, so
// that pods' packets fit it; 1500 where there is none.
func uplinkMTU(h *netlink.Handle) (int, error) {
	const ethernet = 1500
	routes, err := h.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return 0, fmt.Errorf("list the host's routes: %w", err)
	}
	for _, r := range routes {
		if r.Dst != nil && !r.Dst.IP.IsUnspecified() {
			continue
		}
		link, err := h.LinkByIndex(r.LinkIndex)
		if err != nil {
			return 0, fmt.Errorf("find the interface of the default route: %w", err)
		}
		return link.Attrs().MTU, nil
	}
	return ethernet, nil
}

// ensureForwarding turns IPv4 forwarding on. It is never turned off again:
// something else on the host may have come to need it.
func ensureForwarding() error {
	const path = "/proc/sys/net/ipv4/ip_forward"
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read IPv4 forwarding: %w", err)
	}
	if strings.TrimSpace(string(b)) == "1" {
		return nil
	}
	if err := os.WriteFile(path, []byte("1"), 0); err != nil {
		return fmt.Errorf("turn IPv4 forwarding on: %w", err)
	}
	return nil
}
