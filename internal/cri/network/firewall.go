package network

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The names of what the table holds, as `nft list table` shows them.
const (
	portsMap   = "hostports"    // protocol . port → pod's address . port
	ipPortsMap = "hostports-ip" // host's address . protocol . port → the same
)

// firewall owns the nftables table. The table is static but for the two maps
// of host ports.
type firewall struct {
	table          *nftables.Table
	bridge         string
	cidr           netip.Prefix
	open           []opening
	api            *opening // the one that port 443 leads to, too; nil without
	ports, ipPorts *nftables.Set
	// rules counts those of the table, by chain.
	rules map[string]int
	// noMatches says that rules can't have the form of iptables-nft's.
	noMatches bool
}

// opening is a port of the host's that pods may reach.
type opening struct {
	addr      netip.Addr
	port      uint16
	protocols []uint8
}

func openings(cfg Config, gateway, api netip.Addr) (open []opening, forAPI *opening) {
	for _, port := range cfg.GatewayPorts {
		open = append(open, opening{gateway, port, []uint8{unix.IPPROTO_UDP, unix.IPPROTO_TCP}})
	}
	if cfg.APIPort == 0 {
		return open, nil
	}
	o := opening{api, cfg.APIPort, []uint8{unix.IPPROTO_TCP}}
	return append(open, o), &o
}

// newFirewall replaces the table by one with empty maps and lets pods' packets
// through the host's own forward and input chains where those drop by default.
func newFirewall(cfg Config, cidr netip.Prefix, gateway, api netip.Addr) (*firewall, error) {
	f := &firewall{
		table:  &nftables.Table{Name: cfg.Table, Family: nftables.TableFamilyIPv4},
		bridge: cfg.Bridge, cidr: cidr,
	}
	f.open, f.api = openings(cfg, gateway, api)
	if err := f.write(nil); err != nil {
		return nil, err
	}
	if err := f.admit(true); err != nil {
		return nil, err
	}
	return f, nil
}

// write replaces the table, in one transaction, by one with those host ports.
func (f *firewall) write(open []openPort) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	f.rules = map[string]int{}
	// Adding first makes the deletion succeed where there is no table yet.
	c.AddTable(f.table)
	c.DelTable(f.table)
	c.AddTable(f.table)
	if err := f.addMaps(c, open); err != nil {
		return err
	}
	f.addGuard(c)
	f.addPostrouting(c)
	f.addNATChains(c)
	f.addForward(c)
	if err := c.Flush(); err != nil {
		return fmt.Errorf("write the nftables table %q: %w", f.table.Name, err)
	}
	return nil
}

// openPort is a host port and the pod that has it.
type openPort struct {
	PortMapping
	addr netip.Addr
}

func (f *firewall) addMaps(c *nftables.Conn, open []openPort) error {
	dest := nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService)
	f.ports = &nftables.Set{
		Table: f.table, Name: portsMap, IsMap: true, Concatenation: true, DataType: dest,
		KeyType: nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeInetService),
	}
	f.ipPorts = &nftables.Set{
		Table: f.table, Name: ipPortsMap, IsMap: true, Concatenation: true, DataType: dest,
		KeyType: nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService),
	}
	elements := map[*nftables.Set][]nftables.SetElement{}
	for _, p := range open {
		set := f.mapOf(p.PortMapping)
		elements[set] = append(elements[set], element(p.addr, p.PortMapping))
	}
	return errors.Join(c.AddSet(f.ports, elements[f.ports]), c.AddSet(f.ipPorts, elements[f.ipPorts]))
}

// mapOf is the map that holds such a port.
func (f *firewall) mapOf(p PortMapping) *nftables.Set {
	if p.HostIP.IsValid() {
		return f.ipPorts
	}
	return f.ports
}

// whole says whether the table is as it was written, with so many host ports.
// What can't be read isn't.
func (f *firewall) whole(open int) (bool, error) {
	c, err := nftables.New()
	if err != nil {
		return false, fmt.Errorf("open nftables: %w", err)
	}
	for chain, want := range f.rules {
		rules, err := c.GetRules(f.table, &nftables.Chain{Name: chain})
		if err != nil || len(rules) != want {
			return false, nil
		}
	}
	for _, set := range []*nftables.Set{f.ports, f.ipPorts} {
		elements, err := c.GetSetElements(set)
		if err != nil {
			return false, nil
		}
		open -= len(elements)
	}
	return open == 0, nil
}

// loopback is what no packet on a wire may be sent to.
var loopback = netip.MustParsePrefix("127.0.0.0/8")

// addGuard drops what pods send to the host's loopback, before connection
// tracking sees it and so before an answer to the host itself has that address:
// routeLoopback would let it in (CVE-2020-8558).
func (f *firewall) addGuard(c *nftables.Conn) {
	chain := c.AddChain(&nftables.Chain{
		Name: "guard", Table: f.table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRaw,
	})
	f.rule(c, chain, iface(expr.MetaKeyIIFNAME, f.bridge), f.to(loopback), refuse())
}

// addPostrouting masquerades what leaves the pods' range, what one pod sends
// another by a host port, and what the host sends to one by its loopback: the
// answer must come back by the host.
func (f *firewall) addPostrouting(c *nftables.Conn) {
	chain := c.AddChain(&nftables.Chain{
		Name: "postrouting", Table: f.table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	})
	multicast := netip.MustParsePrefix("224.0.0.0/4")
	f.rule(c, chain, f.from(f.cidr), f.notTo(f.cidr), f.notTo(multicast), one(&expr.Masq{}))
	f.rule(c, chain, iface(expr.MetaKeyOIFNAME, f.bridge), f.from(f.cidr), f.to(f.cidr), dnatted(), one(&expr.Masq{}))
	f.rule(c, chain, f.from(loopback), f.to(f.cidr), dnatted(), one(&expr.Masq{}))
}

// addNATChains sends host ports to their pods: what comes from outside, and
// what the host itself sends to one of its addresses, 127.0.0.1 among them.
func (f *firewall) addNATChains(c *nftables.Conn) {
	for _, base := range []struct {
		name string
		hook *nftables.ChainHook
		from []expr.Any // who reaches the API
	}{
		{"prerouting", nftables.ChainHookPrerouting, iface(expr.MetaKeyIIFNAME, f.bridge)},
		{"output", nftables.ChainHookOutput, nil},
	} {
		chain := c.AddChain(&nftables.Chain{
			Name: base.name, Table: f.table, Type: nftables.ChainTypeNAT,
			Hooknum: base.hook, Priority: nftables.ChainPriorityNATDest,
		})
		for _, r := range f.openingRules(destinationPort) {
			f.rule(c, chain, r) // a host port of a pod's doesn't stand in the way
		}
		if f.api != nil {
			f.rule(c, chain, base.from, toAPI(*f.api))
		}
		f.rule(c, chain, toLocal(), f.dnat(f.ipPorts, true))
		f.rule(c, chain, toLocal(), f.dnat(f.ports, false))
	}
}

// addForward accepts pods' packets in a chain of our own. It decides nothing
// against another chain that drops (admit sees to those); it shows what is
// meant, and counts.
func (f *firewall) addForward(c *nftables.Conn) {
	chain := c.AddChain(&nftables.Chain{
		Name: "forward", Table: f.table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
	})
	for _, r := range acceptRules(f.bridge) {
		f.rule(c, chain, r)
	}
}

func (f *firewall) rule(c *nftables.Conn, chain *nftables.Chain, parts ...[]expr.Any) {
	var all []expr.Any
	for _, p := range parts {
		all = append(all, p...)
	}
	c.AddRule(&nftables.Rule{Table: f.table, Chain: chain, Exprs: all})
	f.rules[chain.Name]++
}

func (f *firewall) addPorts(addr netip.Addr, ports []PortMapping) error {
	return f.changePorts(addr, ports, (*nftables.Conn).SetAddElements)
}

// removePorts closes ports again. Those that aren't open any more are no error.
func (f *firewall) removePorts(addr netip.Addr, ports []PortMapping) error {
	err := f.changePorts(addr, ports, (*nftables.Conn).SetDeleteElements)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

func (f *firewall) changePorts(addr netip.Addr, ports []PortMapping, change func(*nftables.Conn, *nftables.Set, []nftables.SetElement) error) error {
	if len(ports) == 0 {
		return nil
	}
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	for _, p := range ports {
		if err := change(c, f.mapOf(p), []nftables.SetElement{element(addr, p)}); err != nil {
			return fmt.Errorf("host port %s: %w", p, err)
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("write host ports to the nftables table %q: %w", f.table.Name, err)
	}
	return nil
}

// destroy removes the table and what admit put into the host's chains.
func (f *firewall) destroy() error {
	errs := []error{f.dismiss()}
	c, err := nftables.New()
	if err != nil {
		return errors.Join(append(errs, fmt.Errorf("open nftables: %w", err))...)
	}
	c.DelTable(f.table)
	if err := c.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		errs = append(errs, fmt.Errorf("remove the nftables table %q: %w", f.table.Name, err))
	}
	return errors.Join(errs...)
}
