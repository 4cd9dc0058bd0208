//go:build node

package leakcheck

import (
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"errand.dev/errand/internal/cri/network"
	"errand.dev/errand/internal/instance"
)

func TestRulesInTheHostsChainsAreFound(t *testing.T) {
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("make a network namespace (this test needs root): %v", err)
	}
	c := &nftables.Conn{}
	drop := nftables.ChainPolicyDrop
	c.AddChain(&nftables.Chain{
		Name: "FORWARD", Table: c.AddTable(&nftables.Table{Name: "filter", Family: nftables.TableFamilyIPv4}), Policy: &drop,
		Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
	})
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	names := instance.Names{ID: "x", RuntimeDir: filepath.Join(t.TempDir(), "run"), CgroupParent: "/no-such-errand", Bridge: "er-none", NFTable: "no-such-errand"}
	m, err := network.New(t.Context(), network.Config{Bridge: names.Bridge, Table: names.NFTable, StateDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	left, err := rules(names, "")
	if err != nil || len(left) != 1 || !strings.Contains(left[0], "filter FORWARD") {
		t.Errorf("found %q, %v", left, err)
	}
	if err := m.Destroy(); err != nil {
		t.Fatal(err)
	}
	if left, err := rules(names, ""); err != nil || len(left) != 0 {
		t.Errorf("found %q, %v", left, err)
	}
}
