package network

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// ErrNoFreeRange says that every candidate range overlaps a route or an
// address of the host.
var ErrNoFreeRange = errors.New("no free range of pod addresses")

// DefaultCIDRs are the ranges that are tried in order when none is configured.
// They stay clear of what Docker, libvirt, k3s and kubeadm take by default.
func DefaultCIDRs() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("10.88.0.0/16"),
		netip.MustParsePrefix("10.89.0.0/16"),
		netip.MustParsePrefix("10.213.0.0/16"),
		netip.MustParsePrefix("172.29.0.0/16"),
		netip.MustParsePrefix("192.168.192.0/20"),
	}
}

// SelectCIDR returns the first candidate that overlaps no prefix in use, or an
// error that wraps ErrNoFreeRange.
func SelectCIDR(candidates, inUse []netip.Prefix) (netip.Prefix, error) {
	for _, c := range candidates {
		if overlapped(c, inUse) == (netip.Prefix{}) {
			return c.Masked(), nil
		}
	}
	detail := ""
	for _, c := range candidates {
		detail += fmt.Sprintf("; %s overlaps the host's %s", c, overlapped(c, inUse))
	}
	return netip.Prefix{}, fmt.Errorf("%w%s: configure a range that the host doesn't use", ErrNoFreeRange, detail)
}

func overlapped(c netip.Prefix, inUse []netip.Prefix) netip.Prefix {
	for _, p := range inUse {
		if c.Overlaps(p) {
			return p
		}
	}
	return netip.Prefix{}
}

// hostPrefixes lists the host's IPv4 addresses and routes, except the default
// route and what belongs to the link with index own.
func hostPrefixes(h *netlink.Handle, own int) ([]netip.Prefix, error) {
	var out []netip.Prefix
	addrs, err := h.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("list the host's addresses: %w", err)
	}
	for _, a := range addrs {
		if p, ok := prefixOf(a.IPNet); ok && a.LinkIndex != own {
			out = append(out, p)
		}
	}
	routes, err := h.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("list the host's routes: %w", err)
	}
	for _, r := range routes {
		if p, ok := prefixOf(r.Dst); ok && p.Bits() > 0 && r.LinkIndex != own {
			out = append(out, p)
		}
	}
	return out, nil
}
