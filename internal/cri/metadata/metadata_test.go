package metadata

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func makeSandbox() *Sandbox {
	return &Sandbox{
		ID: "s1", Phase: Created, CreatedAt: time.Unix(1700000000, 5).UTC(), Boot: "b",
		Address: netip.MustParseAddr("10.88.0.2"),
		Config:  Proto[*runtimeapi.PodSandboxConfig]{&runtimeapi.PodSandboxConfig{Hostname: "h", Labels: map[string]string{"a": "b"}}},
	}
}

func openSandboxes(t *testing.T, root string) *Dir[Sandbox] {
	t.Helper()
	d, err := OpenDir[Sandbox](root)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestRecordsComeBack(t *testing.T) {
	d := openSandboxes(t, filepath.Join(t.TempDir(), "sandboxes"))
	want := makeSandbox()
	for _, phase := range []Phase{Creating, Created} {
		want.Phase = phase
		if err := d.Put(want.ID, want); err != nil {
			t.Fatal(err)
		}
	}
	got, damaged, err := d.Load()
	if err != nil || len(damaged) != 0 {
		t.Fatal(damaged, err)
	}
	if diff := cmp.Diff(map[string]*Sandbox{"s1": want}, got, protocmp.Transform(), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	for range 2 {
		if err := d.Delete("s1"); err != nil {
			t.Fatal(err)
		}
	}
	if got, _, _ := d.Load(); len(got) != 0 {
		t.Errorf("%v is left", got)
	}
}

func TestDamagedRecordsAreToldAndRemoved(t *testing.T) {
	root := t.TempDir()
	d := openSandboxes(t, root)
	for name, content := range map[string]string{"empty.jsonl": "", "cut.jsonl": `{"id":"cut","config":"Cg`, "null.jsonl": "\x00\x00\n"} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, damaged, err := d.Load()
	if err != nil || len(got) != 0 || len(damaged) != 3 {
		t.Errorf("records %v, damaged %v, %v", got, damaged, err)
	}
	if left, _ := os.ReadDir(root); len(left) != 0 {
		t.Errorf("%v is left", left)
	}
}

// Wherever the last write is cut off, the record is what it was before, and can
// be written again.
func TestACutTailIsDropped(t *testing.T) {
	root := t.TempDir()
	d := openSandboxes(t, root)
	s := makeSandbox()
	for _, phase := range []Phase{Creating, Created} {
		s.Phase = phase
		if err := d.Put(s.ID, s); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(root, "s1"+suffix)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := len(whole)/2 + 1; cut < len(whole); cut++ {
		if err := os.WriteFile(path, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		if got, _, err := d.Load(); err != nil || got["s1"].Phase != Creating {
			t.Fatalf("cut at %d: %v, %v", cut, got["s1"], err)
		}
		if err := d.Put(s.ID, s); err != nil {
			t.Fatal(err)
		}
		if got, _, err := d.Load(); err != nil || got["s1"].Phase != Created {
			t.Fatalf("cut at %d and written again: %v, %v", cut, got["s1"], err)
		}
	}
}

func BenchmarkPut(b *testing.B) {
	d, err := OpenDir[Sandbox](b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := d.Put("s1", makeSandbox()); err != nil {
			b.Fatal(err)
		}
	}
}
