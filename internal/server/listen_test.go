package server

import (
	"net"
	"os"
	"testing"

	"errand.dev/errand/internal/datadir"
)

// An errand that may choose its port has the same one again after a restart: whoever
// follows a Job meanwhile asks there.
func TestTheLastPortAgain(t *testing.T) {
	dir, err := datadir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	open := func(address string) net.Listener {
		t.Helper()
		l, err := listen(t.Context(), address, dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l
	}
	const free = "127.0.0.1:0"
	first := open(free)
	first.Close()
	again := open(free)
	if first.Addr().String() != again.Addr().String() {
		t.Errorf("first %s, then %s", first.Addr(), again.Addr())
	}
	// While another has it, any other will do, which is then kept.
	other := open(free)
	if other.Addr().String() == again.Addr().String() {
		t.Errorf("two listen at %s", other.Addr())
	}
	other.Close()
	if l := open(free); l.Addr().String() != other.Addr().String() {
		t.Errorf("%s, want the last one, %s", l.Addr(), other.Addr())
	}
	// A port that is named counts.
	again.Close()
	if l := open(again.Addr().String()); l.Addr().String() != again.Addr().String() {
		t.Errorf("%s, want %s", l.Addr(), again.Addr())
	}
	if err := os.WriteFile(dir.Path(portFile), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	open(free)
}
