package network

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"errand.dev/errand/internal/atomicfile"
)

// Config is what a Manager is made from.
type Config struct {
	// Bridge is the bridge's name, at most 15 bytes.
	Bridge string
	// Table is the nftables table's name.
	Table string
	// CIDRs are the candidate ranges of pod addresses, in order of preference;
	// empty means DefaultCIDRs. A bridge that is already there keeps its range.
	CIDRs []netip.Prefix
	// MTU of bridge and veths, in bytes; 0 means that of the default route's
	// interface.
	MTU int
	// GatewayPorts are the ports, UDP and TCP, at the host's address in the range
	// that pods may reach whatever the host's firewall drops by default.
	GatewayPorts []uint16
	// APIPort is where the API listens for pods at Manager.APIAddr. Pods, and the
	// host's own processes, reach it there and at port 443 of that address; the
	// neighbours don't. 0 means that there is no such address.
	APIPort uint16
	// StateDir holds how far the range has been used. It is made if missing.
	StateDir string
	// Clock times the delay before a freed address is used again, and Run's
	// retries.
	Clock clock.Clock

	asked []netip.Prefix // CIDRs as configured
}

// Manager owns the bridge, the table and the addresses. It is safe for
// concurrent use.
type Manager struct {
	cfg    Config
	host   *netlink.Handle
	bridge netlink.Link
	mtu    int
	nft    *firewall

	mu    sync.Mutex
	ipam  *ipam
	ports map[string][]PortMapping // of the sandboxes that have any
	// loopback is what routeLoopback has set.
	loopback bool
}

// New makes bridge and table, or takes over those that a predecessor left. The
// network namespace of the calling thread is the host's.
func New(ctx context.Context, cfg Config) (*Manager, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	m := &Manager{cfg: cfg, host: h, ports: map[string][]PortMapping{}}
	if err := m.start(ctx); err != nil {
		h.Close()
		return nil, fmt.Errorf("set up the pod network: %w", err)
	}
	return m, nil
}

func (c *Config) complete() error {
	if c.Bridge == "" || len(c.Bridge) >= unix.IFNAMSIZ {
		return fmt.Errorf("bridge name %q: want 1 to %d bytes", c.Bridge, unix.IFNAMSIZ-1)
	}
	if c.Table == "" || c.StateDir == "" {
		return errors.New("network: Table and StateDir must be set")
	}
	if c.asked = c.CIDRs; len(c.CIDRs) == 0 {
		c.CIDRs = DefaultCIDRs()
	}
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	return os.MkdirAll(c.StateDir, 0o700)
}

func (m *Manager) start(ctx context.Context) error {
	cidr, err := m.claimRange(ctx)
	if err != nil {
		return err
	}
	if err := ensureAddress(m.host, m.bridge, m.APIAddr(), m.cfg.APIPort != 0); err != nil {
		return err
	}
	if err := ensureForwarding(); err != nil {
		return err
	}
	if m.nft, err = newFirewall(m.cfg, cidr, m.Gateway(), m.APIAddr()); err != nil {
		return err
	}
	klog.FromContext(ctx).V(2).Info("Pod network is up", "bridge", m.cfg.Bridge, "cidr", cidr, "mtu", m.mtu)
	return nil
}

// claimRange makes the bridge in the first range that is free, or takes it over with
// the one that it has.
func (m *Manager) claimRange(ctx context.Context) (netip.Prefix, error) {
	unlock, err := lockRanges()
	if err != nil {
		return netip.Prefix{}, err
	}
	defer unlock()
	link, cidr, err := existingBridge(m.host, m.cfg.Bridge)
	if err != nil {
		return cidr, err
	}
	if !cidr.IsValid() {
		own := -1
		if link != nil {
			own = link.Attrs().Index
		}
		used, err := hostRanges(m.host, own)
		if err != nil {
			return cidr, err
		}
		if cidr, err = SelectCIDR(m.cfg.CIDRs, used); err != nil {
			return cidr, err
		}
	}
	if note := ignored(m.cfg, cidr); note != "" {
		klog.FromContext(ctx).Info(note)
	}
	if m.ipam, err = newIPAM(cidr, m.cfg.Clock, cursorFile(filepath.Join(m.cfg.StateDir, "cursor"))); err != nil {
		return cidr, err
	}
	if m.mtu = m.cfg.MTU; m.mtu == 0 {
		if m.mtu, err = uplinkMTU(m.host); err != nil {
			return cidr, err
		}
	}
	m.bridge, err = ensureBridge(m.host, m.cfg.Bridge, m.ipam.gateway(), m.mtu)
	return cidr, err
}

// ignored says that the bridge keeps a range other than those that were asked
// for: pods that run have addresses in it.
func ignored(cfg Config, cidr netip.Prefix) string {
	if len(cfg.asked) == 0 || slices.ContainsFunc(cfg.asked, func(p netip.Prefix) bool { return p.Masked() == cidr }) {
		return ""
	}
	return fmt.Sprintf("The pod range %v is ignored: the bridge %s already has %s, and pods may use it. To change the range, end all pods, stop errand and remove the bridge (ip link delete %s), and start errand again",
		cfg.asked, cfg.Bridge, cidr, cfg.Bridge)
}

// CIDR is the range of pod addresses.
func (m *Manager) CIDR() netip.Prefix { return m.ipam.cidr }

// Gateway is the host's address in the range: pods reach the host by it.
func (m *Manager) Gateway() netip.Addr { return m.ipam.gateway().Addr() }

// APIAddr is the address in the range that is kept for the API.
func (m *Manager) APIAddr() netip.Addr { return m.ipam.api() }

// Reserve gives the sandbox an address, the same each time until Release. The
// error wraps ErrExhausted when the range is used up.
func (m *Manager) Reserve(id string) (netip.Addr, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ipam.reserve(id)
}

// Restore takes over what a sandbox was given before a restart: its address
// and its host ports.
func (m *Manager) Restore(id string, addr netip.Addr, ports []PortMapping) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.ipam.restore(id, addr); err != nil {
		return err
	}
	return m.addPorts(id, addr, ports)
}

// Release frees the sandbox's address and host ports once its network
// namespace is dropped. It does nothing for a sandbox that holds none.
func (m *Manager) Release(id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	addr := m.ipam.byID[id]
	m.ipam.release(id)
	ports := m.ports[id]
	delete(m.ports, id)
	err := m.nft.removePorts(addr, ports)
	m.routeLoopback()
	return err
}

// Close gives up the manager's sockets and leaves the network as it is, for
// the next errand to take over.
func (m *Manager) Close() {
	m.host.Close()
}

// Destroy removes the table and the bridge, and closes the manager. No
// sandbox may be left.
func (m *Manager) Destroy() error {
	defer m.Close()
	return errors.Join(Remove(m.cfg.Bridge, m.cfg.Table), os.RemoveAll(m.cfg.StateDir))
}

// Remove removes the table and the bridge of those names, as far as they are
// there, also where no manager can be made any more. No sandbox may be left.
func Remove(bridge, table string) error {
	nft := &firewall{table: &nftables.Table{Name: table, Family: nftables.TableFamilyIPv4}, bridge: bridge}
	return errors.Join(nft.destroy(), removeBridge(bridge))
}

// VethPrefix begins the names of all veths on the given bridge, so that what
// an instance left behind can be told from its neighbours'.
func VethPrefix(bridge string) string {
	h := fnv.New32a()
	h.Write([]byte(bridge)) //nolint:errcheck // a hash's Write never fails
	return fmt.Sprintf("e%05x", h.Sum32()&0xfffff)
}

// VethName is the name of the host's end of a sandbox's veth.
func VethName(bridge, id string) string {
	const room = unix.IFNAMSIZ - 1
	name := VethPrefix(bridge) + id
	return name[:min(len(name), room)]
}

// cursorFile stores the range's cursor. What is lost with the power is only
// how far the range was used, so nothing waits for the disk beyond the file's
// own replacement, once per stride.
type cursorFile string

func (f cursorFile) Load() (string, error) {
	b, err := os.ReadFile(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return string(b), err
}

func (f cursorFile) Store(s string) error {
	return atomicfile.Write(string(f), []byte(s), 0o600)
}
