package network

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ErrNoFreeRange says that every candidate range overlaps a route or an
// address of the host.
var ErrNoFreeRange = errors.New("no free range of pod addresses")

// DefaultCIDRs are the ranges that are tried in order when none is configured.
// They stay clear of what others take by default, also of what those take only
// later and the host doesn't show yet:
//
//	Docker                172.17.0.0 to 172.31.255.255, 192.168.0.0/16
//	podman, CNI           10.88.0.0/16, then 10.89.0.0 to 10.255.255.255
//	CRI-O, nerdctl        10.85.0.0/16, 10.4.0.0/16
//	k3s, kind, kubeadm    10.42.0.0/15, 10.244.0.0/16, 10.96.0.0/12
//	flannel, Calico       10.244.0.0/16, 192.168.0.0/16
//	MicroK8s, Weave       10.1.0.0/16, 10.152.183.0/24, 10.32.0.0/12
//	libvirt, minikube     192.168.122.0/24, 192.168.49.0/24, 192.168.39.0/24
//	OpenShift, AWS, GCE   10.128.0.0/9, 172.30.0.0/16, 172.31.0.0/16
//
// Each errand of a machine has one. Those from 172.16.0.0 on are for hosts with
// a route to all of 10.0.0.0/8: there is one large range, and small ones for further
// errands.
func DefaultCIDRs() []netip.Prefix {
	ranges := []netip.Prefix{
		netip.MustParsePrefix("10.57.0.0/16"),
		netip.MustParsePrefix("10.71.0.0/16"),
		netip.MustParsePrefix("10.83.0.0/16"),
	}
	for second := byte(59); second < 83; second += 2 {
		if second != 71 {
			ranges = append(ranges, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, second}), 16))
		}
	}
	ranges = append(ranges, netip.MustParsePrefix("172.16.0.0/17"))
	for third := 128; third < 256; third += 16 {
		ranges = append(ranges, netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, byte(third)}), 20))
	}
	return ranges
}

// HostRange is a range that the host uses.
type HostRange struct {
	Prefix netip.Prefix
	// Interface has it, or a route leads there by it; "" for a route by none.
	Interface string
}

// String says which range it is, and whose.
func (r HostRange) String() string {
	if r.Interface == "" {
		return r.Prefix.String() + ", which the host has a route to"
	}
	return r.Prefix.String() + " of the interface " + r.Interface
}

// SelectCIDR returns the first candidate that overlaps no range in use, or an
// error that wraps ErrNoFreeRange and names one that is free, if it knows any.
func SelectCIDR(candidates []netip.Prefix, inUse []HostRange) (netip.Prefix, error) {
	if free, ok := firstFree(candidates, inUse); ok {
		return free, nil
	}
	taken := make([]string, 0, len(candidates))
	for _, c := range candidates {
		if r, ok := overlapped(c, inUse); ok {
			taken = append(taken, fmt.Sprintf("%s overlaps %s", c, r))
		}
	}
	advice := "choose a range that the host doesn't use"
	if free, ok := firstFree(DefaultCIDRs(), inUse); ok {
		advice = fmt.Sprintf("choose one that the host doesn't use, such as %s, or none, to have one found", free)
	}
	return netip.Prefix{}, fmt.Errorf("%w: %s: %s", ErrNoFreeRange, strings.Join(taken, "; "), advice)
}

func firstFree(candidates []netip.Prefix, inUse []HostRange) (netip.Prefix, bool) {
	for _, c := range candidates {
		if _, taken := overlapped(c, inUse); !taken {
			return c.Masked(), true
		}
	}
	return netip.Prefix{}, false
}

func overlapped(c netip.Prefix, inUse []HostRange) (HostRange, bool) {
	for _, r := range inUse {
		if c.Overlaps(r.Prefix) {
			return r, true
		}
	}
	return HostRange{}, false
}

// hostRanges lists the host's IPv4 addresses and routes, except the default
// route and what belongs to the link with index own.
func hostRanges(h *netlink.Handle, own int) ([]HostRange, error) {
	var out []HostRange
	links, err := h.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list the host's interfaces: %w", err)
	}
	names := make(map[int]string, len(links))
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	addrs, err := h.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("list the host's addresses: %w", err)
	}
	for _, a := range addrs {
		if p, ok := prefixOf(a.IPNet); ok && a.LinkIndex != own {
			out = append(out, HostRange{p, names[a.LinkIndex]})
		}
	}
	routes, err := h.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("list the host's routes: %w", err)
	}
	for _, r := range routes {
		if p, ok := prefixOf(r.Dst); ok && p.Bits() > 0 && r.LinkIndex != own {
			out = append(out, HostRange{p, names[r.LinkIndex]})
		}
	}
	return out, nil
}

// lockRanges keeps others of this network namespace from choosing a range, until
// unlock: a range is seen to be taken only once its bridge has it. The lock is the
// namespace's own file, and leaves nothing behind.
func lockRanges() (unlock func(), err error) {
	f, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock the choice of a pod range: %w", err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}
