package network

import (
	"encoding/binary"
	"math"
	"net"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"
)

// Offsets in an IPv4 header, in bytes.
const (
	ipSource      = 12
	ipDestination = 16
)

// The kernel numbers registers of 16 bytes from 1, and the same memory as
// registers of 4 bytes from 8.
const (
	reg      = 1
	regWord0 = 8
	regWord1 = 9
	regWord2 = 10
)

// httpsPort is where clients of the API in pods connect to.
const httpsPort = 443

// ctStatusDNAT is IPS_DST_NAT of the kernel's enum ip_conntrack_status.
const ctStatusDNAT = 1 << 5

func one(e expr.Any) []expr.Any { return []expr.Any{e} }

func (f *firewall) from(p netip.Prefix) []expr.Any { return match(ipSource, p, expr.CmpOpEq) }
func (f *firewall) to(p netip.Prefix) []expr.Any   { return match(ipDestination, p, expr.CmpOpEq) }
func (f *firewall) notTo(p netip.Prefix) []expr.Any {
	return match(ipDestination, p, expr.CmpOpNeq)
}

func match(offset uint32, p netip.Prefix, op expr.CmpOp) []expr.Any {
	addr := p.Masked().Addr().As4()
	return []expr.Any{
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: net.CIDRMask(p.Bits(), 32), Xor: make([]byte, 4)},
		&expr.Cmp{Op: op, Register: reg, Data: addr[:]},
	}
}

// toLocal matches packets to one of the host's own addresses.
func toLocal() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: reg, ResultADDRTYPE: true, FlagDADDR: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}
}

// dnatted matches packets whose destination was translated.
func dnatted() []expr.Any { return ct(expr.CtKeySTATUS, ctStatusDNAT) }

// ct matches packets of which the connection has any of the bits.
func ct(key expr.CtKey, bits uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Register: reg, Key: key},
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: make([]byte, 4)},
	}
}

// dnat looks the packet up in a map of host ports and sends it where that says.
func (f *firewall) dnat(set *nftables.Set, byAddress bool) []expr.Any {
	words := []uint32{regWord0, regWord1, regWord2}
	var key []expr.Any
	if byAddress {
		key = append(key, &expr.Payload{DestRegister: words[0], Base: expr.PayloadBaseNetworkHeader, Offset: ipDestination, Len: 4})
		words = words[1:]
	}
	return append(key,
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: words[0]},
		&expr.Payload{DestRegister: words[1], Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Lookup{SourceRegister: reg, DestRegister: reg, IsDestRegSet: true, SetName: set.Name, SetID: set.ID},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: regWord0, RegProtoMin: regWord1},
	)
}

// element is a port mapping as its map holds it: each part of a key or value
// fills a word of four bytes.
func element(addr netip.Addr, p PortMapping) nftables.SetElement {
	var key []byte
	if p.HostIP.IsValid() {
		ip := p.HostIP.As4()
		key = append(key, ip[:]...)
	}
	key = append(key, p.Protocol, 0, 0, 0)
	key = append(key, portWord(p.HostPort)...)
	pod := addr.As4()
	return nftables.SetElement{Key: key, Val: append(pod[:], portWord(p.ContainerPort)...)}
}

func portWord(port uint16) []byte {
	return append(binary.BigEndian.AppendUint16(nil, port), 0, 0)
}

// acceptRules accept what comes from the bridge, and what goes to it as long as
// it answers a pod or was sent to a host port: a chain that drops by default
// keeps the neighbours, who may have a route to the pods, from calling them.
func acceptRules(bridge string) [][]expr.Any {
	return [][]expr.Any{
		accept(iface(expr.MetaKeyIIFNAME, bridge)),
		accept(iface(expr.MetaKeyOIFNAME, bridge), answers()),
		accept(iface(expr.MetaKeyOIFNAME, bridge), dnatted()),
	}
}

// iptablesRules are acceptRules in the form that iptables-nft writes itself:
// it refuses to list or change a table with a rule in any other.
func iptablesRules(bridge string) [][]expr.Any {
	states := &expr.Match{Name: "conntrack", Rev: 3, Info: &xt.ConntrackMtinfo3{ConntrackMtinfo2: xt.ConntrackMtinfo2{
		ConntrackMtinfoBase: xt.ConntrackMtinfoBase{MatchFlags: uint16(xt.ConntrackState)},
		StateMask:           xtEstablished | xtRelated | xtDNAT,
	}}}
	return [][]expr.Any{
		accept(iface(expr.MetaKeyIIFNAME, bridge)),
		accept(iface(expr.MetaKeyOIFNAME, bridge), one(states)),
	}
}

// inputRules accept what pods send to the ports that are open to them. In iptables-nft's form each names the protocol
// and has its match for the port.
func (f *firewall) inputRules(iptables bool) [][]expr.Any {
	match := destinationPort
	if iptables {
		match = xtPort
	}
	rules := f.openingRules(match)
	for i, r := range rules {
		rules[i] = append(iface(expr.MetaKeyIIFNAME, f.bridge), r...)
	}
	return rules
}

// openingRules accept what goes to the open ports, whoever sends it.
func (f *firewall) openingRules(match func(protocol uint8, port uint16) []expr.Any) [][]expr.Any {
	var rules [][]expr.Any
	for _, o := range f.open {
		for _, protocol := range o.protocols {
			rules = append(rules, accept(toAddress(o.addr), l4(protocol), match(protocol, o.port)))
		}
	}
	return rules
}

// toAPI sends what goes to port 443 of the API's address to the port that it
// listens on: another server of the host's may have 443 on all addresses.
func toAPI(api opening) []expr.Any {
	addr := api.addr.As4()
	return slices.Concat(toAddress(api.addr), l4(unix.IPPROTO_TCP), destinationPort(unix.IPPROTO_TCP, httpsPort), []expr.Any{
		&expr.Immediate{Register: regWord0, Data: addr[:]},
		&expr.Immediate{Register: regWord1, Data: binary.BigEndian.AppendUint16(nil, api.port)},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: regWord0, RegProtoMin: regWord1},
	})
}

// toAddress has no mask, as iptables-nft writes a whole address.
func toAddress(to netip.Addr) []expr.Any {
	addr := to.As4()
	return []expr.Any{
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: ipDestination, Len: 4},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: addr[:]},
	}
}

func l4(protocol uint8) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{protocol}},
	}
}

func destinationPort(_ uint8, port uint16) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: binary.BigEndian.AppendUint16(nil, port)},
	}
}

func xtPort(protocol uint8, port uint16) []expr.Any {
	anyPort, this := [2]uint16{0, math.MaxUint16}, [2]uint16{port, port}
	if protocol == unix.IPPROTO_UDP {
		return one(&expr.Match{Name: "udp", Info: &xt.Udp{SrcPorts: anyPort, DstPorts: this}})
	}
	return one(&expr.Match{Name: "tcp", Info: &xt.Tcp{SrcPorts: anyPort, DstPorts: this}})
}

// The bits of the iptables match's --ctstate.
const (
	xtEstablished = 1 << 1
	xtRelated     = 1 << 2
	xtDNAT        = 1 << 7
)

func accept(parts ...[]expr.Any) []expr.Any {
	return append(slices.Concat(parts...), &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictAccept})
}

func refuse() []expr.Any {
	return []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}}
}

// iface matches packets that come by the interface, or leave by it.
func iface(key expr.MetaKey, name string) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: key, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: append([]byte(name), 0)},
	}
}

// answers matches packets of connections that have been let through.
func answers() []expr.Any {
	return ct(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED)
}
