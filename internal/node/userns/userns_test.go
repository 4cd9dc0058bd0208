package userns

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"
)

func open(t *testing.T, dir string, ids IDs) *Allotter {
	t.Helper()
	a, err := New(dir, ids)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func allot(t *testing.T, a *Allotter, uid types.UID) uint32 {
	t.Helper()
	u, err := a.Allot(uid)
	if err != nil {
		t.Fatal(err)
	}
	if len(u.Uids) != 1 || len(u.Gids) != 1 || u.Uids[0].HostId != u.Gids[0].HostId || u.Uids[0].ContainerId != 0 || u.Uids[0].Length != IDsPerPod {
		t.Fatalf("allotted %v", u)
	}
	return u.Uids[0].HostId
}

func TestRangesDoNotMeet(t *testing.T) {
	const pods = 5
	ids := IDs{First: 100000, Length: pods*IDsPerPod + 7}
	a := open(t, t.TempDir(), ids)
	seen := map[uint32]bool{}
	for i := range pods {
		uid := types.UID(fmt.Sprint(i))
		first := allot(t, a, uid)
		if seen[first] || (first-ids.First)%IDsPerPod != 0 || first < ids.First || first+IDsPerPod > ids.First+ids.Length {
			t.Errorf("pod %d got %d, after %v", i, first, seen)
		}
		seen[first] = true
		if again := allot(t, a, uid); again != first {
			t.Errorf("pod %d had %d and has %d", i, first, again)
		}
	}
	if _, err := a.Allot("more"); err == nil || !strings.Contains(err.Error(), "all 5 ranges") {
		t.Errorf("one pod too many: %v", err)
	}
	first := allot(t, a, "3")
	if err := a.Release("3"); err != nil {
		t.Fatal(err)
	}
	if got := allot(t, a, "more"); got != first {
		t.Errorf("got %d, want %d, which was given back", got, first)
	}
}

func TestRestart(t *testing.T) {
	dir, ids := t.TempDir(), IDs{First: IDsPerPod, Length: 3 * IDsPerPod}
	a := open(t, dir, ids)
	one, two := allot(t, a, "one"), allot(t, a, "two")
	for range 2 {
		if err := a.Release("two"); err != nil {
			t.Fatal(err)
		}
	}
	a = open(t, dir, ids)
	if got := allot(t, a, "one"); got != one {
		t.Errorf("a pod's IDs began at %d, and at %d after a restart", one, got)
	}
	if three := allot(t, a, "three"); three == one {
		t.Error("two pods have the same IDs")
	}
	if got := open(t, dir, ids).used["two"]; got != 0 {
		t.Errorf("a pod has %d, which it had given back (%d)", got, two)
	}
	// Other IDs are configured: the old ones stay their pods', and no range meets them.
	a = open(t, dir, IDs{First: one - IDsPerPod/2, Length: IDsPerPod})
	if u, err := a.Allot("four"); err == nil {
		t.Errorf("allotted %v beside %d", u, one)
	}
	if got := allot(t, a, "one"); got != one {
		t.Errorf("got %d, want %d", got, one)
	}
	if err := os.WriteFile(filepath.Join(dir, "one", fileName), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(dir, ids); err == nil || !strings.Contains(err.Error(), filepath.Join("one", fileName)) {
		t.Errorf("a damaged file: %v", err)
	}
}

// What was given back last is used last.
func TestNoHurriedReuse(t *testing.T) {
	a := open(t, t.TempDir(), IDs{First: IDsPerPod, Length: 3 * IDsPerPod})
	var last uint32
	for range 7 {
		first := allot(t, a, "pod")
		if first == last {
			t.Fatalf("%d is used again at once", first)
		}
		last = first
		if err := a.Release("pod"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestParseIDs(t *testing.T) {
	def := DefaultIDs()
	if got, err := ParseIDs(def.String()); err != nil || got != def || got.String() != "65536:2147287040" {
		t.Errorf("default %v: %v, %v", def, got, err)
	}
	for s, want := range map[string]string{
		"65536":                 "no range",
		"a:b":                   "no range",
		"-65536:65536":          "no range",
		"4294967296:1":          "no range",
		"65535:65536":           "the host's own",
		"4294901760:65536":      "beyond the last",
		"65536:4294901760":      "beyond the last",
		"100000:65536 ":         "no range",
		"100000:65536:0":        "no range",
		"18446744073709551615:": "no range",
	} {
		if got, err := ParseIDs(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %v; want %q", s, got, err, want)
		}
	}
	if _, err := New(t.TempDir(), IDs{First: IDsPerPod, Length: IDsPerPod - 1}); err == nil {
		t.Error("IDs for no pod")
	}
}
