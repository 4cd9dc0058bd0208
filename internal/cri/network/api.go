package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"

	"errand.dev/errand/internal/portholder"
)

// ListenAPI opens what the API listens on for pods and for the host's own
// processes, at APIAddr and Config.APIPort. What comes by another interface than
// the bridge meets no listener, so that a neighbour of the host's who has a way
// to the pods' range is refused. What the host sends to an address of its own
// counts as coming by the interface that has the address. Where the API listens
// on that port of all addresses, it is reached without this.
func (m *Manager) ListenAPI(ctx context.Context) (net.Listener, error) {
	at := netip.AddrPortFrom(m.APIAddr(), m.cfg.APIPort)
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var bound error
		if err := c.Control(func(fd uintptr) { bound = unix.BindToDevice(int(fd), m.cfg.Bridge) }); err != nil {
			return err
		}
		return bound
	}}
	l, err := lc.Listen(ctx, "tcp4", at.String())
	if errors.Is(err, unix.EADDRINUSE) {
		return nil, fmt.Errorf("serve the API to pods at %s: %s listens there or on all addresses: %w", at, portholder.Find("/", at.String()), err)
	}
	if err != nil {
		return nil, fmt.Errorf("serve the API to pods at %s by the interface %s: %w", at, m.cfg.Bridge, err)
	}
	return l, nil
}
