package images

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func points(paths ...string) []MountPoint {
	var ps []MountPoint
	for _, p := range paths {
		ps = append(ps, MountPoint{Path: strings.TrimSuffix(p, "!"), File: strings.HasSuffix(p, "!")})
	}
	return ps
}

// tree lists what is below a directory, directories with a slash.
func tree(t *testing.T, dir string) []string {
	t.Helper()
	var found []string
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if d.IsDir() {
			rel += "/"
		}
		found = append(found, rel)
		return err
	}))
	return found
}

func openSets(t *testing.T, dir string, users map[string]int) *mountPointSets {
	t.Helper()
	m, err := openMountPointSets(dir, users)
	must(t, err)
	return m
}

func TestMountPointSet(t *testing.T) {
	m := openSets(t, t.TempDir(), map[string]int{})
	set, err := m.claim(points("/proc", "/etc/hosts!", "/data/in/a", "/data/in/b!"))
	must(t, err)
	want := []string{"data/", "data/in/", "data/in/a/", "data/in/b", "etc/", "etc/hosts", "proc/"}
	if diff := cmp.Diff(want, tree(t, m.path(set))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for path, mode := range map[string]fs.FileMode{"": 0o755, "data": 0o755, "etc/hosts": 0o644} {
		st, err := os.Stat(filepath.Join(m.path(set), path))
		must(t, err)
		if st.Mode().Perm() != mode {
			t.Errorf("%q has mode %o", path, st.Mode().Perm())
		}
	}
	again, err := m.claim(points("/data/in/b!", "/data/in/a", "/etc/hosts!", "/proc"))
	must(t, err)
	if again != set {
		t.Error("another order makes another set")
	}
	other, err := m.claim(points("/data/in/b", "/data/in/a", "/etc/hosts!", "/proc"))
	must(t, err)
	if other == set {
		t.Error("a directory in place of a file makes no other set")
	}
	if none, err := m.claim(nil); none != "" || err != nil {
		t.Errorf("no points: %q, %v", none, err)
	}
}

// Sets that nobody uses are kept for the next container, but not all of them, and never past a restart.
func TestIdleMountPointSets(t *testing.T) {
	dir := t.TempDir()
	m := openSets(t, dir, map[string]int{})
	var sets []string
	for i := range maxIdleSets + 2 {
		set, err := m.claim(points(fmt.Sprintf("/data/%d", i)))
		must(t, err)
		sets = append(sets, set)
	}
	twice, err := m.claim(points("/data/0"))
	must(t, err)
	must(t, m.release(twice)) // one claim is left
	for _, set := range sets[1:] {
		must(t, m.release(set))
	}
	exists := func(set string) bool {
		_, err := os.Stat(m.path(set))
		return err == nil
	}
	if !exists(sets[0]) {
		t.Error("a set in use is gone")
	}
	if exists(sets[1]) || !exists(sets[2]) || len(m.idle) != maxIdleSets {
		t.Errorf("not the oldest of the idle ones is gone; %d are kept", len(m.idle))
	}
	if got, err := m.claim(points("/data/2")); err != nil || got != sets[2] || len(m.idle) != maxIdleSets-1 {
		t.Errorf("an idle set is taken up again: %v, %d idle", err, len(m.idle))
	}
	must(t, os.Mkdir(filepath.Join(dir, unfinishedSet), 0o700))
	openSets(t, dir, map[string]int{sets[0]: 1})
	left, err := os.ReadDir(dir)
	must(t, err)
	if len(left) != 1 || left[0].Name() != sets[0] {
		t.Errorf("after a restart there are %v", left)
	}
}

// A root tells which set it is over, by a restart too, and lets go of it when it is removed.
func TestMountPointsOfRoots(t *testing.T) {
	s, cfg, img := pulled(t)
	ctx := context.Background()
	at := RootOptions{MountPoints: points("/data", "/etc/hosts!")}
	first, err := s.PrepareRootfs(ctx, "c1", img, at)
	must(t, err)
	_, err = s.PrepareRootfs(ctx, "c2", img, at)
	must(t, err)
	lowest := func(options []string) string {
		for _, o := range options {
			if dirs, ok := strings.CutPrefix(o, "lowerdir="); ok {
				return dirs[strings.LastIndex(dirs, ":")+1:]
			}
		}
		return ""
	}
	set := lowest(first[0].Options)
	if diff := cmp.Diff([]string{"data/", "etc/", "etc/hosts"}, tree(t, set)); diff != "" {
		t.Fatalf("the lowest layer (-want +got):\n%s", diff)
	}
	if _, err := s.PrepareRootfs(ctx, "c1", img, at); err == nil {
		t.Fatal("a container has two roots")
	}
	must(t, s.Close())
	s = openStore(t, cfg)
	again, err := s.Rootfs(ctx, "c1")
	must(t, err)
	if diff := cmp.Diff(first, again); diff != "" {
		t.Errorf("after a restart (-before +after):\n%s", diff)
	}
	must(t, s.RemoveRootfs(ctx, "c1"))
	must(t, s.RemoveRootfs(ctx, "c1"))
	if got := s.rootfs.points.users[filepath.Base(set)]; got != 1 {
		t.Errorf("%d users are left", got)
	}
	must(t, s.RemoveRootfs(ctx, "c2"))
	if got := s.rootfs.points.users; len(got) > 0 {
		t.Errorf("after all roots are gone: %v", got)
	}
}
