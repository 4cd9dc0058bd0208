package clusterdns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"errand.dev/errand/internal/portholder"
)

// Sockets are where the questions arrive. What arrives before a Server runs, as
// after a restart with running pods, waits in them.
type Sockets struct {
	addr netip.AddrPort
	udp  net.PacketConn
	tcp  net.Listener
}

// Listen takes the port of the address, by UDP and by TCP, and nothing of any
// other address. Port 0 means any free one. The error says who has the port, and
// what can be done.
func Listen(ctx context.Context, at netip.AddrPort) (*Sockets, error) {
	var lc net.ListenConfig
	udp, err := lc.ListenPacket(ctx, "udp", at.String())
	if err != nil {
		return nil, inTheWay(at, "UDP", err)
	}
	bound := udp.LocalAddr().(*net.UDPAddr).AddrPort()
	tcp, err := lc.Listen(ctx, "tcp", bound.String())
	if err != nil {
		return nil, errors.Join(inTheWay(at, "TCP", err), udp.Close())
	}
	return &Sockets{addr: bound, udp: udp, tcp: tcp}, nil
}

func inTheWay(at netip.AddrPort, protocol string, err error) error {
	if !errors.Is(err, unix.EADDRINUSE) {
		return fmt.Errorf("serve names to pods at %s by %s: %w", at, protocol, err)
	}
	return fmt.Errorf("serve names to pods at %s by %s: %s listens there or on all addresses: have it listen on its own addresses only (BIND: listen-on; dnsmasq: bind-interfaces; unbound: interface), or use --cluster-dns=false, with which pods know no names of Services (%w)",
		at, protocol, portholder.Find("/", at.String()), err)
}

// Addr is where the sockets listen.
func (s *Sockets) Addr() netip.AddrPort { return s.addr }

// Close gives the port back.
func (s *Sockets) Close() error {
	return errors.Join(ignoreClosed(s.udp.Close()), ignoreClosed(s.tcp.Close()))
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
