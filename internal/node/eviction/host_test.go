package eviction

import "testing"

func TestTheRealMachine(t *testing.T) {
	dir := t.TempDir()
	r, err := LinuxHost(1<<40, dir, func() string { return dir }).Read()
	if err != nil {
		t.Fatal(err)
	}
	if r.Memory.WorkingSet <= 0 || r.Tasks <= 0 || r.TasksMax <= r.Tasks || r.NodeFS.Available <= 0 || r.NodeFS.Capacity <= r.NodeFS.Available || r.NodeFS != r.ImageFS {
		t.Errorf("%+v", r)
	}
}
