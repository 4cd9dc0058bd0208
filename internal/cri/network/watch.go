package network

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"k8s.io/klog/v2"
)

// watchRetry is what Run waits before it listens again, should that fail.
const watchRetry = time.Second

// watchBuffer holds the kernel's notices in bytes, for a firewall of some ten
// thousand rules that is loaded at once.
const watchBuffer = 4 << 20

// Run keeps what errand has in the host's firewall until ctx ends: whoever
// loads a ruleset of their own begins by flushing all that is there
// (/etc/nftables.conf of Debian does), and pods would lose their way out and
// their host ports.
func (m *Manager) Run(ctx context.Context) error {
	for {
		err := m.watch(ctx)
		if ctx.Err() != nil {
			return nil
		}
		klog.FromContext(ctx).Error(err, "Lost sight of the host's firewall; looking again", "retry", watchRetry)
		select {
		case <-m.cfg.Clock.After(watchRetry):
		case <-ctx.Done():
			return nil
		}
	}
}

// watch follows the firewall's changes until ctx ends, or some were missed.
func (m *Manager) watch(ctx context.Context) error {
	// A lasting connection is one that can be closed whatever the monitor does.
	c, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
		return c.SetReadBuffer(watchBuffer)
	}))
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	changes, err := c.AddGenerationalMonitor(nftables.NewMonitor())
	if err != nil {
		return errors.Join(fmt.Errorf("follow the host's firewall: %w", err), c.CloseLasting())
	}
	defer func() {
		_ = c.CloseLasting() // nothing was written
		for range changes {  // the monitor may be about to send
		}
	}()
	for disturbed := true; ; {
		if disturbed {
			if err := m.restore(ctx); err != nil {
				// The next change brings the next try.
				klog.FromContext(ctx).Error(err, "Could not restore errand's part of the host's firewall")
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case change, ok := <-changes:
			if !ok {
				return errors.New("the kernel's notices have ended")
			}
			if err := change.GeneratedBy.Error; err != nil {
				return fmt.Errorf("follow the host's firewall: %w", err)
			}
			disturbed = m.nft.disturbedBy(change)
		}
	}
}

// restore writes what is missing. It changes nothing where nothing is, so that
// its own changes don't keep it going.
func (m *Manager) restore(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	open := m.openPorts()
	whole, err := m.nft.whole(len(open))
	if err != nil {
		return err
	}
	if !whole {
		klog.FromContext(ctx).Info("errand's table in the host's firewall was removed or changed; it is written anew", "table", m.cfg.Table)
		if err := m.nft.write(open); err != nil {
			return err
		}
	}
	return m.nft.admit(false)
}

func (m *Manager) openPorts() []openPort {
	var open []openPort
	for id, ports := range m.ports {
		for _, p := range ports {
			open = append(open, openPort{PortMapping: p, addr: m.ipam.byID[id]})
		}
	}
	return open
}

// disturbedBy says whether a transaction may have taken something of errand's
// away, or brought a chain that drops.
func (f *firewall) disturbedBy(t *nftables.MonitorEvents) bool {
	for _, e := range t.Changes {
		switch e.Type {
		case nftables.MonitorEventTypeDelTable, nftables.MonitorEventTypeDelChain, nftables.MonitorEventTypeDelRule,
			nftables.MonitorEventTypeDelSet, nftables.MonitorEventTypeDelSetElem:
			return true
		case nftables.MonitorEventTypeNewChain:
			if chain, ok := e.Data.(*nftables.Chain); !ok || chain == nil || chain.Hooknum != nil {
				return true // a base chain's policy is told like this as well
			}
		}
	}
	return false
}
