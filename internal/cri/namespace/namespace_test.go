package namespace

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

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

func TestClosedTo(t *testing.T) {
	dir := t.TempDir()
	closed := filepath.Join(dir, "a", "closed")
	inside := filepath.Join(closed, "b", "missing")
	if err := errors.Join(os.MkdirAll(filepath.Dir(inside), 0o755), os.Chmod(closed, 0o750)); err != nil {
		t.Fatal(err)
	}
	if got := closedTo(inside); got != closed {
		t.Errorf("got %q, want %q", got, closed)
	}
	if err := errors.Join(os.Chmod(closed, 0o711), os.Chmod(dir, 0o755), os.Chmod(filepath.Dir(dir), 0o755)); err != nil {
		t.Fatal(err)
	}
	if got := closedTo(inside); got != "" {
		t.Errorf("got %q, which is open", got)
	}
}
