//go:build node

package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

var (
	hostInput = &nftables.Chain{
		Name: "INPUT", Table: &nftables.Table{Name: "filter", Family: nftables.TableFamilyIPv4},
		Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter,
	}
	nftInput = &nftables.Chain{
		Name: "input", Table: &nftables.Table{Name: "filter", Family: nftables.TableFamilyINet},
		Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter,
	}
)

// echo answers on the host by UDP and TCP until the test ends.
func (h *host) echo(at netip.AddrPort) {
	h.t.Helper()
	tcp, err := net.Listen("tcp4", at.String())
	if err != nil {
		h.t.Fatal(err)
	}
	udp, err := net.ListenPacket("udp4", at.String())
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		if err := errors.Join(tcp.Close(), udp.Close()); err != nil {
			h.t.Error(err)
		}
	})
	go func() {
		for {
			c, err := tcp.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, "host")
			c.Close()
		}
	}()
	go func() {
		b := make([]byte, 64)
		for {
			_, from, err := udp.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = udp.WriteTo([]byte("host"), from) // who asked notices
		}
	}()
}

// How long a server is listened to: one that answers, as long as a busy machine
// may need, and one that isn't to be reached, as long as a machine with nothing
// else to do takes many times over.
const (
	patience = 30 * time.Second
	silence  = 300 * time.Millisecond
)

// hears says what a server answers within a time.
func hears(protocol string, at netip.AddrPort, within time.Duration) (string, error) {
	c, err := net.DialTimeout(protocol, at.String(), within)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(within)); err != nil {
		return "", err
	}
	if protocol == "udp4" {
		if _, err := c.Write([]byte("?")); err != nil {
			return "", err
		}
	}
	b := make([]byte, 64)
	n, err := c.Read(b)
	return string(b[:n]), err
}

// A host that drops what it is sent answers pods at the open port alone, which a
// pod's host port of the same number doesn't take over.
func TestPodsReachOpenPorts(t *testing.T) {
	for name, chain := range map[string]*nftables.Chain{"iptables": hostInput, "nft": nftInput} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			drop(t, chain)
			h.cfg.GatewayPorts = []uint16{53}
			m := h.start()
			h.addPod(m, "pod-a")
			h.addPod(m, "pod-b", PortMapping{Protocol: unix.IPPROTO_TCP, HostPort: 53, ContainerPort: 53})
			h.serve("pod-b", 53)
			open, shut := netip.AddrPortFrom(m.Gateway(), 53), netip.AddrPortFrom(m.Gateway(), 54)
			h.echo(open)
			h.echo(shut)
			err := h.dir.Run("pod-a", func() error {
				for _, protocol := range []string{"udp4", "tcp4"} {
					if got, err := hears(protocol, open, patience); got != "host" {
						return fmt.Errorf("open port by %s: %q, %w", protocol, got, err)
					}
					if got, err := hears(protocol, shut, silence); err == nil {
						return fmt.Errorf("another port by %s answers %q", protocol, got)
					}
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
			if left, err := AcceptRules(h.cfg.Table); err != nil || len(left) != 1 {
				t.Errorf("rules in the host's chains: %q, %v", left, err)
			}
			h.removePod(m, "pod-a")
			h.removePod(m, "pod-b")
			if err := m.Destroy(); err != nil {
				t.Fatal(err)
			}
			if left, err := AcceptRules(h.cfg.Table); err != nil || len(left) != 0 {
				t.Errorf("rules that stay in the host's chains: %q, %v", left, err)
			}
		})
	}
}
