package node

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestRemoveLogRemovesRotatedOnes(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"1.log", "1.log.20260102-150405", "1.log.20260102-150404.gz", "11.log", "0.log.20260102-150405"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := removeLog(filepath.Join(dir, "1.log")); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	left := map[string]bool{}
	for _, e := range entries {
		left[e.Name()] = true
	}
	if got, want := slices.Sorted(maps.Keys(left)), []string{"0.log.20260102-150405", "11.log"}; !slices.Equal(got, want) {
		t.Errorf("left are %q, want %q", got, want)
	}
	for _, path := range []string{"", filepath.Join(dir, "none.log"), filepath.Join(dir, "none", "0.log")} {
		if err := removeLog(path); err != nil {
			t.Errorf("%q: %v", path, err)
		}
	}
}
