package doctor

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"errand.dev/errand/internal/datadir"
)

func TestPortOfNames(t *testing.T) {
	h := fakeRoot(t, nil)
	if f := podNames(t.Context(), h); f.Status != OK || !strings.Contains(f.Detail, "host's resolvers") {
		t.Errorf("where pods' questions aren't answered: %+v", f)
	}
	everywhere, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer everywhere.Close()
	at := netip.AddrPortFrom(nobodys, everywhere.Addr().(*net.TCPAddr).AddrPort().Port())
	real := h
	real.Root = "/"
	want := fmt.Sprintf("port %d on all addresses is taken by doctor.test (pid %d)", at.Port(), os.Getpid())
	if f := tryNames(t.Context(), real, at); f.Status != Failure || f.Detail != want || !strings.Contains(f.Remedy, "--cluster-dns=false") {
		t.Errorf("somebody listens on all addresses: %+v, want %q", f, want)
	}
	d, err := datadir.Open(h.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if f := tryNames(t.Context(), real, at); f.Status != OK {
		t.Errorf("errand itself listens: %+v", f)
	}
	if f := tryNames(t.Context(), real, netip.AddrPortFrom(nobodys, 0)); f.Status != OK {
		t.Errorf("nobody listens: %+v", f)
	}
}
