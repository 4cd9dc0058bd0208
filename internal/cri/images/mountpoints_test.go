package images

import (
	"context"
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

// A set goes with the last that uses it, and what a crash has left goes with a restart.
func TestUnusedMountPointSets(t *testing.T) {
	dir := t.TempDir()
	m := openSets(t, dir, map[string]int{})
	set, err := m.claim(points("/data"))
	must(t, err)
	_, err = m.claim(points("/data"))
	must(t, err)
	exists := func() bool {
		_, err := os.Stat(m.path(set))
		return err == nil
	}
	must(t, m.release(set))
	if !exists() {
		t.Error("a set in use is gone")
	}
	must(t, m.release(set))
	if exists() {
		t.Error("a set that nobody uses is there")
	}

	must(t, os.MkdirAll(filepath.Join(m.path(set), "left by a removal that failed"), 0o700))
	_, err = m.claim(points("/data"))
	must(t, err)
	if diff := cmp.Diff([]string{"data/"}, tree(t, m.path(set))); diff != "" {
		t.Errorf("made anew (-want +got):\n%s", diff)
	}
	for _, left := range []string{unfinishedSet, "unused"} {
		must(t, os.Mkdir(filepath.Join(dir, left), 0o700))
	}
	openSets(t, dir, map[string]int{set: 1})
	if diff := cmp.Diff([]string{set + "/", set + "/data/"}, tree(t, dir)); diff != "" {
		t.Errorf("after a restart (-want +got):\n%s", diff)
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
	if left := tree(t, s.rootfs.points.dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
