package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"errand.dev/errand/internal/clusterdns"
	"errand.dev/errand/internal/datadir"
	"errand.dev/errand/internal/instance"
	"errand.dev/errand/internal/portholder"
)

// nobodys is an address of loopback's that no program listens at but those that
// listen at all addresses, which would be in the way at a bridge's, too.
var nobodys = netip.MustParseAddr("127.57.0.1")

// podNames tries to take the port at which errand serve answers pods' questions
// for names: at the bridge's address where there is a bridge yet.
func podNames(ctx context.Context, h Host) Finding {
	if !h.ClusterDNS {
		return ok("pods ask the host's resolvers")
	}
	names, err := instance.For(h.DataDir)
	if err != nil {
		return fail("name another --data-dir", "%v", err)
	}
	addr, err := bridgeAddress(names.Bridge)
	if err != nil {
		return warn("try again", "%v", err)
	}
	return tryNames(ctx, h, netip.AddrPortFrom(addr, clusterdns.Port))
}

func tryNames(ctx context.Context, h Host, at netip.AddrPort) Finding {
	where := at.String()
	if at.Addr() == nobodys {
		where = fmt.Sprintf("port %d on all addresses", at.Port())
	}
	sockets, err := clusterdns.Listen(ctx, at)
	switch {
	case err == nil:
		if err := sockets.Close(); err != nil {
			return warn("try again", "%s could not be given back: %v", where, err)
		}
		return ok("port %d is free for pods' questions", at.Port())
	case errors.Is(err, unix.EACCES):
		return warn("run errand doctor as root", "can't try without root")
	case !errors.Is(err, unix.EADDRINUSE):
		return fail("use --cluster-dns=false", "%v", err)
	}
	who := portholder.Find(h.Root, at.String())
	if holder, held, err := datadir.HeldBy(h.DataDir); err == nil && held && (who.PID == 0 || who.PID == holder.PID) {
		return ok("%s is in use by the running errand, %s", where, holder)
	}
	return fail("have it listen on its own addresses only (BIND: listen-on; dnsmasq: bind-interfaces; unbound: interface), or use --cluster-dns=false",
		"%s is taken by %s", where, who)
}

// bridgeAddress is the host's address on the bridge, or nobody's without one.
func bridgeAddress(bridge string) (netip.Addr, error) {
	link, err := netlink.LinkByName(bridge)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nobodys, nil
	}
	if err != nil {
		return netip.Addr{}, fmt.Errorf("look for the bridge %s: %w", bridge, err)
	}
	addrs, err := netlink.AddrList(link, netlink.FAMILY_V4)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("list the addresses of the bridge %s: %w", bridge, err)
	}
	for _, a := range addrs {
		if addr, ok := netip.AddrFromSlice(a.IP.To4()); ok {
			return addr, nil
		}
	}
	return nobodys, nil
}
