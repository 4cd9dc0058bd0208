package network

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"k8s.io/utils/clock"
)

// ErrExhausted says that no address of the range is free.
var ErrExhausted = errors.New("no free pod address")

const (
	// reuseDelay keeps a freed address back, so that what still talks to the
	// old pod (an ARP entry, a client that retries) doesn't meet a new one.
	reuseDelay = time.Minute
	// cursorStride is how many allocations one write of the cursor covers. A
	// restart skips what is left of the stride rather than reuse it early.
	cursorStride = 256
)

// ipam hands out the addresses of one range in turn, so that an address comes
// again only after all others were used. It isn't safe for concurrent use; the
// Manager's lock covers it.
type ipam struct {
	cidr   netip.Prefix
	first  uint32 // the first address after the gateway
	size   uint32 // how many addresses can be given out
	next   uint32 // offset from first of the next to try
	held   map[netip.Addr]string
	byID   map[string]netip.Addr
	freed  map[netip.Addr]time.Time
	clock  clock.PassiveClock
	cursor cursor
}

// cursor remembers across restarts how far the range has been used.
type cursor interface {
	Load() (string, error) // "" when nothing was stored
	Store(string) error
}

// newIPAM starts where the cursor says that its predecessor got to.
func newIPAM(cidr netip.Prefix, cl clock.PassiveClock, cur cursor) (*ipam, error) {
	if !cidr.Addr().Is4() || cidr.Bits() > 29 {
		return nil, fmt.Errorf("pod range %s: want an IPv4 range of at least /29", cidr)
	}
	base := addrToUint(cidr.Masked().Addr())
	total := uint32(1) << (32 - cidr.Bits())
	a := &ipam{
		cidr: cidr.Masked(),
		// The network's address, the gateway, the API's address and the broadcast
		// address are nobody's.
		first: base + 2, size: total - 4,
		held: map[netip.Addr]string{}, byID: map[string]netip.Addr{}, freed: map[netip.Addr]time.Time{},
		clock: cl, cursor: cur,
	}
	s, err := cur.Load()
	if err != nil {
		return nil, fmt.Errorf("read how far the pod range is used: %w", err)
	}
	// A cursor of another range, or a damaged one, only means to start over.
	if rng, off, ok := strings.Cut(strings.TrimSpace(s), " "); ok && rng == a.cidr.String() {
		if n, err := strconv.ParseUint(off, 10, 32); err == nil {
			a.next = uint32(n) % a.size
		}
	}
	return a, nil
}

// gateway is the bridge's own address, the first of the range.
func (a *ipam) gateway() netip.Prefix {
	return netip.PrefixFrom(uintToAddr(a.first-1), a.cidr.Bits())
}

// api is the address that pods reach the API by, the last of the range.
func (a *ipam) api() netip.Addr { return uintToAddr(a.first + a.size) }

// reserve gives id an address, the same one if it has one already.
func (a *ipam) reserve(id string) (netip.Addr, error) {
	if addr, ok := a.byID[id]; ok {
		return addr, nil
	}
	addr, ok := a.pick(reuseDelay)
	if !ok {
		// A small range may have nothing but fresh leavings: better early
		// reuse than a pod that can't start.
		addr, ok = a.pick(0)
	}
	if !ok {
		return netip.Addr{}, fmt.Errorf("%w: all %d of %s are held", ErrExhausted, a.size, a.cidr)
	}
	if err := a.advance(addr); err != nil {
		return netip.Addr{}, err
	}
	a.hold(id, addr)
	return addr, nil
}

func (a *ipam) pick(delay time.Duration) (netip.Addr, bool) {
	now := a.clock.Now()
	for i := uint32(0); i < a.size; i++ {
		addr := uintToAddr(a.first + (a.next+i)%a.size)
		if _, ok := a.held[addr]; ok {
			continue
		}
		if t, ok := a.freed[addr]; ok && now.Sub(t) < delay {
			continue
		}
		return addr, true
	}
	return netip.Addr{}, false
}

// advance moves the cursor behind addr and stores it ahead of its use, once
// per stride.
func (a *ipam) advance(addr netip.Addr) error {
	off := addrToUint(addr) - a.first
	if off%cursorStride == 0 || off < a.next || off-a.next >= cursorStride {
		ahead := (off/cursorStride + 1) * cursorStride
		if err := a.cursor.Store(fmt.Sprintf("%s %d\n", a.cidr, ahead)); err != nil {
			return fmt.Errorf("record how far the pod range is used: %w", err)
		}
	}
	a.next = (off + 1) % a.size
	return nil
}

// restore holds an address that id was given before a restart.
func (a *ipam) restore(id string, addr netip.Addr) error {
	if !a.cidr.Contains(addr) {
		return fmt.Errorf("address %s of sandbox %s is outside of the pod range %s", addr, id, a.cidr)
	}
	if addr == a.api() {
		return fmt.Errorf("address %s of sandbox %s has become the API's", addr, id)
	}
	if other, ok := a.held[addr]; ok && other != id {
		return fmt.Errorf("address %s of sandbox %s is held by sandbox %s", addr, id, other)
	}
	a.hold(id, addr)
	return nil
}

func (a *ipam) hold(id string, addr netip.Addr) {
	a.held[addr], a.byID[id] = id, addr
	delete(a.freed, addr)
}

func (a *ipam) release(id string) {
	addr, ok := a.byID[id]
	if !ok {
		return
	}
	delete(a.byID, id)
	delete(a.held, addr)
	a.freed[addr] = a.clock.Now()
}
