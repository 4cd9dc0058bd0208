//go:build node

package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

const testAPIPort = 7443

// answer says to each caller who it is seen as.
func answer(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		fmt.Fprint(c, c.RemoteAddr())
		c.Close()
	}
}

// serveAPI answers where the API would.
func (h *host) serveAPI(m *Manager) {
	h.t.Helper()
	l, err := m.ListenAPI(context.Background())
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		if err := l.Close(); err != nil {
			h.t.Error(err)
		}
	})
	go answer(l)
}

// Pods and the host's own processes reach the API; a neighbour who has a way to
// the pods' range doesn't.
func TestWhoReachesTheAPI(t *testing.T) {
	h := newHost(t)
	h.cfg.APIPort = testAPIPort
	m := h.start()
	pod := h.addPod(m, "pod-a")
	h.serveAPI(m)
	h.neighbour(m)
	for _, port := range []uint16{443, testAPIPort} {
		if got, err := ask(m.APIAddr(), port); err != nil || !strings.HasPrefix(got, m.APIAddr().String()+":") {
			t.Errorf("host → port %d: seen as %q, %v", port, got, err)
		}
		err := h.dir.Run("pod-a", func() error {
			got, err := ask(m.APIAddr(), port)
			if err == nil && !strings.HasPrefix(got, pod.String()+":") {
				err = fmt.Errorf("seen as %s, want %s", got, pod)
			}
			return err
		})
		if err != nil {
			t.Errorf("pod → port %d: %v", port, err)
		}
		for _, at := range []netip.Addr{m.APIAddr(), m.Gateway(), netip.MustParseAddr("192.0.2.1")} {
			err := h.dir.Run("lan", func() error { _, err := ask(at, port); return err })
			if !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("neighbour → %s port %d: %v, want it refused", at, port, err)
			}
		}
	}
	// The neighbour's way does lead there.
	open, err := net.Listen("tcp4", netip.AddrPortFrom(m.APIAddr(), 8080).String())
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	go answer(open)
	if err := h.dir.Run("lan", func() error { _, err := ask(m.APIAddr(), 8080); return err }); err != nil {
		t.Errorf("neighbour → what listens without regard to who comes: %v", err)
	}
}

// Whatever else there is on the host, pods reach the API: its own server at
// port 443, host ports of pods, a firewall that drops.
func TestNothingStandsBeforeTheAPI(t *testing.T) {
	for name, chain := range map[string]*nftables.Chain{"iptables": hostInput, "nft": nftInput} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			drop(t, chain)
			h.cfg.APIPort = testAPIPort
			m := h.start()
			for _, port := range []uint16{443, testAPIPort} {
				id := fmt.Sprintf("pod-%d", port)
				h.addPod(m, id, PortMapping{Protocol: unix.IPPROTO_TCP, HostPort: port, ContainerPort: 80})
				h.serve(id, 80)
			}
			own, err := net.Listen("tcp4", ":443")
			if err != nil {
				t.Fatal(err)
			}
			defer own.Close()
			h.serveAPI(m)
			pod := h.addPod(m, "pod-a")
			for _, port := range []uint16{443, testAPIPort} {
				err := h.dir.Run("pod-a", func() error {
					got, err := ask(m.APIAddr(), port)
					if err == nil && !strings.HasPrefix(got, pod.String()+":") {
						err = fmt.Errorf("a pod's host port answers: seen as %s", got)
					}
					return err
				})
				if err != nil {
					t.Errorf("port %d: %v", port, err)
				}
			}
		})
	}
}

// The address comes and goes with the port, and the bridge keeps its range.
func TestAPIAddressComesAndGoes(t *testing.T) {
	h := newHost(t)
	for _, port := range []uint16{0, testAPIPort, testAPIPort, testAPIPort + 1, 0} {
		h.cfg.APIPort = port
		m := h.start()
		if m.CIDR() != DefaultCIDRs()[0] || m.APIAddr() != netip.MustParseAddr("10.57.255.254") {
			t.Errorf("the range is %s, the API's address %s", m.CIDR(), m.APIAddr())
		}
		if port == 0 {
			if l, err := net.Listen("tcp4", netip.AddrPortFrom(m.APIAddr(), 1).String()); !errors.Is(err, unix.EADDRNOTAVAIL) {
				if err == nil {
					l.Close()
				}
				t.Errorf("the host has the API's address: %v", err)
			}
			m.Close()
			continue
		}
		api, err := m.ListenAPI(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		go answer(api)
		if _, err := ask(m.APIAddr(), 443); err != nil {
			t.Errorf("host → port 443 with the API at %d: %v", port, err)
		}
		if err := api.Close(); err != nil {
			t.Error(err)
		}
		m.Close()
	}
}

// Who listens on all addresses is named.
func TestAPIPortIsTaken(t *testing.T) {
	h := newHost(t)
	h.cfg.APIPort = testAPIPort
	m := h.start()
	other, err := net.Listen("tcp4", fmt.Sprintf(":%d", testAPIPort))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := m.ListenAPI(context.Background()); !errors.Is(err, unix.EADDRINUSE) || !strings.Contains(err.Error(), "on all addresses") {
		t.Errorf("got %v", err)
	}
}
