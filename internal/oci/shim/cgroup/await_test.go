package cgroup

import (
	"testing"
	"time"
)

func TestAwaitEmptyWithNothingToWaitFor(t *testing.T) {
	dir := t.TempDir()
	file(t, "populated 0\nfrozen 0\n", dir, "empty/cgroup.events")
	mkdir(t, dir, "v1")
	for _, name := range []string{"empty", "v1", "gone"} {
		if AwaitEmpty(dir+"/"+name, time.Hour) {
			t.Errorf("%s: waited", name)
		}
	}
	file(t, "frozen 0\npopulated 1\n", dir, "full/cgroup.events")
	if !AwaitEmpty(dir+"/full", time.Millisecond) {
		t.Error("the patience wasn't waited for")
	}
}
