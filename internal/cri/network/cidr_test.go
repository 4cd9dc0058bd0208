package network

import (
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
