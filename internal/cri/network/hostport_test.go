package network

import (
	"net/netip"
	"testing"
)

func TestPortMappingString(t *testing.T) {
	for want, p := range map[string]PortMapping{
		"80/TCP":           {Protocol: 6, HostPort: 80, ContainerPort: 8080},
		"127.0.0.1:53/UDP": {Protocol: 17, HostPort: 53, HostIP: netip.MustParseAddr("127.0.0.1")},
		"[::1]:5/SCTP":     {Protocol: 132, HostPort: 5, HostIP: netip.MustParseAddr("::1")},
		"1/99":             {Protocol: 99, HostPort: 1},
	} {
		if got := p.String(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
