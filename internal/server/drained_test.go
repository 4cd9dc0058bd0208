package server

import (
	"os"
	"testing"

	"errand.dev/errand/internal/datadir"
)

func TestDrainedContainers(t *testing.T) {
	dir, err := datadir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	drained := func(isNew bool, id string) bool {
		t.Helper()
		is, err := drainedContainers(dir, isNew)
		if err != nil {
			t.Fatal(err)
		}
		return is != nil && is(id)
	}
	if drained(false, "a") {
		t.Error("a container was drained, and nobody has")
	}
	if !drained(true, "a") {
		t.Error("a container of before the restore has failed")
	}
	if err := os.WriteFile(dir.Path(drainedFile), []byte(`["a"]`), 0o600); err != nil {
		t.Fatal(err)
	}
	if !drained(false, "a") || drained(false, "b") {
		t.Errorf("drained: a %v, b %v", drained(false, "a"), drained(false, "b"))
	}
}
