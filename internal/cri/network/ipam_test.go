package network

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	testclock "k8s.io/utils/clock/testing"
	"pgregory.net/rapid"
)

type memoryCursor struct{ s string }

func (c *memoryCursor) Load() (string, error) { return c.s, nil }
func (c *memoryCursor) Store(s string) error  { c.s = s; return nil }

var epoch = time.Unix(1_700_000_000, 0)

func makeIPAM(t interface{ Fatal(...any) }, cidr string, cl *testclock.FakePassiveClock, cur cursor) *ipam {
	a, err := newIPAM(netip.MustParsePrefix(cidr), cl, cur)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestAddressesComeInTurn(t *testing.T) {
	cl := testclock.NewFakePassiveClock(epoch)
	a := makeIPAM(t, "10.0.0.0/29", cl, &memoryCursor{})
	var got []string
	for i := range 4 {
		id := fmt.Sprint(i)
		addr, err := a.reserve(id)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, addr.String())
		a.release(id)
	}
	want := "[10.0.0.2 10.0.0.3 10.0.0.4 10.0.0.5]"
	if fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
	if got := a.gateway().String(); got != "10.0.0.1/29" {
		t.Errorf("gateway %s", got)
	}
}

func TestFreedAddressIsHeldBack(t *testing.T) {
	cl := testclock.NewFakePassiveClock(epoch)
	a := makeIPAM(t, "10.0.0.0/29", cl, &memoryCursor{})
	for i := range 4 {
		if _, err := a.reserve(fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.reserve("x"); !errors.Is(err, ErrExhausted) {
		t.Fatalf("a fifth address of four: %v", err)
	}
	a.release("2") // 10.0.0.4
	cl.SetTime(epoch.Add(time.Second))
	a.release("3") // 10.0.0.5
	cl.SetTime(epoch.Add(reuseDelay))
	// Only .4 has rested long enough.
	if addr, _ := a.reserve("y"); addr.String() != "10.0.0.4" {
		t.Errorf("got %s, want the address that was freed first", addr)
	}
	// None has, and early reuse is better than none.
	if addr, err := a.reserve("z"); err != nil || addr.String() != "10.0.0.5" {
		t.Errorf("got %s, %v", addr, err)
	}
}

func TestRestoredAddressIsTaken(t *testing.T) {
	cl := testclock.NewFakePassiveClock(epoch)
	a := makeIPAM(t, "10.0.0.0/24", cl, &memoryCursor{})
	if err := a.restore("old", netip.MustParseAddr("10.0.0.2")); err != nil {
		t.Fatal(err)
	}
	if addr, _ := a.reserve("old"); addr.String() != "10.0.0.2" {
		t.Errorf("its own address became %s", addr)
	}
	if addr, _ := a.reserve("new"); addr.String() != "10.0.0.3" {
		t.Errorf("got %s", addr)
	}
	if err := a.restore("other", netip.MustParseAddr("10.0.0.2")); err == nil {
		t.Error("one address was restored to two")
	}
	if err := a.restore("far", netip.MustParseAddr("10.0.1.2")); err == nil {
		t.Error("an address outside of the range was restored")
	}
}

// No address is ever held twice, whatever is reserved, released and restarted,
// and a restart never reuses an address that was given out shortly before.
func TestIPAMProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cl := testclock.NewFakePassiveClock(epoch)
		cur := &memoryCursor{}
		a := makeIPAM(t, "10.0.0.0/20", cl, cur)
		live := map[string]netip.Addr{}
		used := map[netip.Addr]bool{}
		for i := range rapid.IntRange(1, 600).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0:
				a = makeIPAM(t, "10.0.0.0/20", cl, cur)
				for id, addr := range live {
					if err := a.restore(id, addr); err != nil {
						t.Fatal(err)
					}
				}
			case 1, 2, 3:
				for id := range live {
					a.release(id)
					delete(live, id)
					break
				}
			default:
				id := fmt.Sprint(i)
				addr, err := a.reserve(id)
				if err != nil {
					return // 600 steps and their restarts may use the range up
				}
				if used[addr] && a.next > uint32(len(used)) && !wrapped(a, used) {
					t.Fatalf("%s was given out again with addresses left", addr)
				}
				for other, theirs := range live {
					if theirs == addr {
						t.Fatalf("%s is held by %s and %s", addr, other, id)
					}
				}
				live[id], used[addr] = addr, true
			}
		}
	})
}

// wrapped says whether the range has been walked through once.
func wrapped(a *ipam, used map[netip.Addr]bool) bool {
	for addr := range used {
		if addrToUint(addr)-a.first >= a.next {
			return true
		}
	}
	return false
}

func TestSelectCIDR(t *testing.T) {
	p := netip.MustParsePrefix
	candidates := []netip.Prefix{p("10.88.0.0/16"), p("10.89.0.0/16")}
	for _, tc := range []struct {
		name string
		used string
		want string
	}{
		{"nothing in use", "", "10.88.0.0/16"},
		{"inside of the first", "10.88.3.0/24", "10.89.0.0/16"},
		{"covering the first", "10.88.0.0/15", "invalid Prefix"},
		{"a single address", "10.88.0.7/32", "10.89.0.0/16"},
		{"elsewhere", "192.168.0.0/16", "10.88.0.0/16"},
	} {
		var used []HostRange
		if tc.used != "" {
			used = []HostRange{{Prefix: p(tc.used)}}
		}
		got, err := SelectCIDR(candidates, used)
		if got.String() != tc.want {
			t.Errorf("%s: got %s, want %s", tc.name, got, tc.want)
		}
		if (err != nil) != (tc.want == "invalid Prefix") || (err != nil && !errors.Is(err, ErrNoFreeRange)) {
			t.Errorf("%s: error %v", tc.name, err)
		}
	}
}

func TestVethNames(t *testing.T) {
	name := VethName("er-0a1b2c", "0123456789abcdef0123456789abcdef")
	if len(name) != 15 || name[:6] != VethPrefix("er-0a1b2c") {
		t.Errorf("veth name %q", name)
	}
	if VethPrefix("errand0") == VethPrefix("er-0a1b2c") {
		t.Error("two instances share a prefix")
	}
}

func TestHostPortsCollide(t *testing.T) {
	any80 := PortMapping{Protocol: 6, HostPort: 80}
	one80 := PortMapping{Protocol: 6, HostPort: 80, HostIP: netip.MustParseAddr("192.0.2.1")}
	two80 := PortMapping{Protocol: 6, HostPort: 80, HostIP: netip.MustParseAddr("192.0.2.2")}
	udp80 := PortMapping{Protocol: 17, HostPort: 80}
	if !any80.collides(one80) || !one80.collides(any80) || one80.collides(two80) || any80.collides(udp80) {
		t.Error("wrong idea of which host ports collide")
	}
}
