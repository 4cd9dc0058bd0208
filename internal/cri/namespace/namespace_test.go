package namespace

import "testing"

func TestSysctlPath(t *testing.T) {
	for name, want := range map[string]string{
		"net.ipv4.ip_forward":            "/proc/sys/net/ipv4/ip_forward",
		"net.ipv4.conf.eth0/1.rp_filter": "/proc/sys/net/ipv4/conf/eth0.1/rp_filter",
		"net.//.kernel.core_pattern":     "", // the way out of the pod's own: net/../kernel/core_pattern
		"net.ipv4.//.//.kernel.panic":    "",
		"//.x":                           "",
		".net.ipv4.ip_forward":           "",
		"net..ipv4":                      "",
		"net./.ipv4":                     "",
		"net.":                           "",
		"..x":                            "",
		"../x":                           "",
		"/":                              "",
		"":                               "",
	} {
		got, err := sysctlPath(name)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v; want %q", name, got, err, want)
		}
	}
}
