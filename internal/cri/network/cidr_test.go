package network

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

// What others take by default, much of it only once it's needed: the host
// doesn't show it.
func TestDefaultsAreNobodyElses(t *testing.T) {
	others := map[string][]string{
		"docker":   {"172.17.0.0/16", "172.18.0.0/16", "172.19.0.0/16", "172.20.0.0/14", "172.24.0.0/14", "172.28.0.0/14", "192.168.0.0/16"},
		"podman":   {"10.88.0.0/16", "10.89.0.0/16", "10.90.0.0/15", "10.92.0.0/14", "10.96.0.0/11", "10.128.0.0/9"},
		"CRI-O":    {"10.85.0.0/16"},
		"nerdctl":  {"10.4.0.0/16"},
		"k3s":      {"10.42.0.0/16", "10.43.0.0/16"},
		"kubeadm":  {"10.96.0.0/12", "10.244.0.0/16"},
		"microk8s": {"10.1.0.0/16", "10.152.183.0/24"},
		"weave":    {"10.32.0.0/12"},
		"libvirt":  {"192.168.122.0/24"},
		"AWS":      {"172.31.0.0/16"},
	}
	for _, own := range DefaultCIDRs() {
		for who, ranges := range others {
			for _, r := range ranges {
				if own.Overlaps(netip.MustParsePrefix(r)) {
					t.Errorf("%s is %s's (%s)", own, who, r)
				}
			}
		}
	}
}

// Each errand of a machine takes the next range, in an order that is always the
// same, and none that overlaps another's or a route of the host's.
func TestManyErrandsFindRanges(t *testing.T) {
	for name, tc := range map[string]struct {
		host  []string
		first []string
		room  int
	}{
		"a bare host":                    {nil, []string{"10.57.0.0/16", "10.71.0.0/16", "10.83.0.0/16", "10.59.0.0/16", "10.61.0.0/16"}, 23},
		"a VPN to all of 10.0.0.0/8":     {[]string{"10.0.0.0/8"}, []string{"172.16.0.0/17", "172.16.128.0/20", "172.16.144.0/20"}, 9},
		"a network of the host's inside": {[]string{"10.71.3.0/24", "172.16.0.0/12"}, []string{"10.57.0.0/16", "10.83.0.0/16", "10.59.0.0/16"}, 13},
	} {
		t.Run(name, func(t *testing.T) {
			var used []HostRange
			for _, r := range tc.host {
				used = append(used, HostRange{Prefix: netip.MustParsePrefix(r)})
			}
			for i := range tc.room {
				got, err := SelectCIDR(DefaultCIDRs(), used)
				if err != nil {
					t.Fatalf("errand %d: %v", i, err)
				}
				if i < len(tc.first) && got.String() != tc.first[i] {
					t.Errorf("errand %d has %s, want %s", i, got, tc.first[i])
				}
				used = append(used, HostRange{Prefix: got})
			}
			if got, err := SelectCIDR(DefaultCIDRs(), used); !errors.Is(err, ErrNoFreeRange) {
				t.Errorf("one more than %d has %s, %v", tc.room, got, err)
			}
		})
	}
}

// Whoever asks for a range that is taken learns by what, and of one that is free.
func TestWhatTakesARangeIsTold(t *testing.T) {
	p := netip.MustParsePrefix
	all := []HostRange{{Prefix: p("10.0.0.0/8")}, {Prefix: p("172.16.0.0/12"), Interface: "tun0"}}
	for name, tc := range map[string]struct {
		used []HostRange
		want string
	}{
		"an interface's": {[]HostRange{{p("10.92.0.0/16"), "er-0eea72"}},
			"no free range of pod addresses: 10.92.3.0/24 overlaps 10.92.0.0/16 of the interface er-0eea72: choose one that the host doesn't use, such as 10.57.0.0/16, or none, to have one found"},
		"a route's, and no other is free": {all,
			"no free range of pod addresses: 10.92.3.0/24 overlaps 10.0.0.0/8, which the host has a route to: choose a range that the host doesn't use"},
	} {
		if got, err := SelectCIDR([]netip.Prefix{p("10.92.3.0/24")}, tc.used); err == nil || err.Error() != tc.want {
			t.Errorf("%s: %s, error %v, want %s", name, got, err, tc.want)
		}
	}
}

func TestARangeThatIsIgnoredIsTold(t *testing.T) {
	has := netip.MustParsePrefix("10.57.0.0/16")
	for asked, want := range map[string]bool{"": false, "10.57.0.0/16": false, "10.57.3.0/16": false, "10.9.0.0/16": true, "10.57.0.0/20": true} {
		cfg := Config{Bridge: "er-test", Table: "t", StateDir: t.TempDir()}
		if asked != "" {
			cfg.CIDRs = []netip.Prefix{netip.MustParsePrefix(asked)}
		}
		if err := cfg.complete(); err != nil {
			t.Fatal(err)
		}
		got := ignored(cfg, has)
		if (got != "") != want || want && (!strings.Contains(got, asked) || !strings.Contains(got, "10.57.0.0/16") || !strings.Contains(got, "ip link delete er-test")) {
			t.Errorf("asked for %q: told %q", asked, got)
		}
	}
}
