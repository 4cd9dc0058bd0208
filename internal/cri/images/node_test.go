//go:build node

package images

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"errand.dev/errand/test/registry"
)

// root is whom a real image's files belong to.
var root registry.Owner

func busybox() (v1.ImageIndex, error) { return registry.Busybox(root) }

// nodeConfig is a configuration that finds out by itself what the file system can do.
func nodeConfig(t testing.TB, srv *registry.Server, dir string) Config {
	t.Helper()
	cfg := testConfig(t, srv, func(c *Config) {
		c.Snapshotter = ""
		if dir != "" {
			c.Root = filepath.Join(dir, "store")
		}
	})
	base := filepath.Dir(cfg.Root)
	t.Cleanup(func() {
		info, err := os.ReadFile("/proc/self/mountinfo")
		must(t, err)
		if strings.Contains(string(info), base+"/") {
			t.Errorf("mounts left below %s", base)
		}
	})
	return cfg
}

// mountRoot makes the root of a container and mounts it where the test finds it; both end with the test.
func mountRoot(t *testing.T, s *Store, id string, img Image) string {
	t.Helper()
	ctx := context.Background()
	mounts, err := s.PrepareRootfs(ctx, id, img, RootOptions{})
	must(t, err)
	dir := t.TempDir()
	must(t, mount.All(mounts, dir))
	t.Cleanup(func() {
		must(t, mount.UnmountAll(dir, 0))
		must(t, s.RemoveRootfs(ctx, id))
	})
	return dir
}

// unmountAtEnd unmounts what a store was on. containerd's content store leaves a file open until the garbage collector closes it.
func unmountAtEnd(t *testing.T, dir string) {
	t.Helper()
	t.Cleanup(func() {
		waitFor(t, func() bool { runtime.GC(); return unix.Unmount(dir, 0) == nil })
	})
}

// in runs a command with root as its root directory and returns its output.
func in(t *testing.T, root string, argv ...string) string {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.Env = "/", []string{"PATH=/bin"} // whatever is usual here
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v: %s", argv, err, out)
	}
	return string(out)
}

func TestNodeBusybox(t *testing.T) {
	srv := startRegistry(t)
	push(t, srv, "library/busybox:latest", busybox)
	s := openStore(t, nodeConfig(t, srv, ""))
	if !s.backend.overlay() {
		t.Fatalf("no overlay on this file system: %+v", s.backend)
	}
	img, err := s.Pull(context.Background(), "busybox", nil)
	must(t, err)
	one, two := mountRoot(t, s, "c1", img), mountRoot(t, s, "c2", img)
	if got := in(t, one, "/bin/echo", "Hello, Job"); got != "Hello, Job\n" {
		t.Errorf("echo said %q", got)
	}
	in(t, one, "/bin/sh", "-c", "echo mine > /etc/passwd; rm -r /home; touch /tmp/x")
	if got := in(t, two, "/bin/sh", "-c", "cat /etc/passwd; ls -d /home; ls /tmp"); !strings.HasPrefix(got, "root:x:0:0") || !strings.Contains(got, "/home") || strings.Contains(got, "x\n\n") {
		t.Errorf("containers share a root: %s", got)
	}
	info, err := os.Stat(filepath.Join(one, "tmp"))
	must(t, err)
	if info.Mode()&fs.ModeSticky == 0 || info.Mode().Perm() != 0o777 {
		t.Errorf("/tmp is %s", info.Mode())
	}
	info, err = os.Stat(one)
	must(t, err)
	if info.Mode().Perm() != 0o755 {
		t.Errorf("/ is %s", info.Mode())
	}
}

// What layers do to each other: replace, delete, make opaque, link, own, and leave parent directories implied.
func TestNodeLayers(t *testing.T) {
	srv := startRegistry(t)
	push(t, srv, "library/a:1", func() (v1.Image, error) {
		files := [][]registry.File{
			{{Name: "d/", Mode: 0o1777}, {Name: "d/old"}, {Name: "gone"}, {Name: "opaque/"}, {Name: "opaque/old"}, {Name: "same", Body: []byte("1")}, {Name: "suid", Mode: 0o4755}},
			{{Name: ".wh.gone"}, {Name: "opaque/"}, {Name: "opaque/.wh..wh..opq"}, {Name: "opaque/new"}, {Name: "same", Body: []byte("2")}},
			{{Name: "d/implied"}, {Name: "same", Body: []byte("3")}, {Name: "hard", Type: tar.TypeLink, Link: "same"}, {Name: "fifo", Type: tar.TypeFifo}},
		}
		var layers []v1.Layer
		for _, f := range files {
			l, err := registry.Layer(root, f...)
			must(t, err)
			layers = append(layers, l)
		}
		return registry.ImageOf("", nil, layers...)
	})
	for _, snapshotter := range []string{SnapshotterOverlay, SnapshotterNative} {
		t.Run(snapshotter, func(t *testing.T) {
			cfg := nodeConfig(t, srv, "")
			cfg.Snapshotter = snapshotter
			s := openStore(t, cfg)
			img, err := s.Pull(context.Background(), "a:1", nil)
			must(t, err)
			dir := mountRoot(t, s, "c1", img)
			for path, want := range map[string]bool{"d/old": true, "d/implied": true, "gone": false, "opaque/old": false, "opaque/new": true, "hard": true, "fifo": true} {
				if _, err := os.Lstat(filepath.Join(dir, path)); (err == nil) != want {
					t.Errorf("%s: %v", path, err)
				}
			}
			body, err := os.ReadFile(filepath.Join(dir, "hard"))
			if err != nil || string(body) != "3" {
				t.Errorf("hard link: %q, %v", body, err)
			}
			for path, want := range map[string]fs.FileMode{"d": fs.ModeDir | fs.ModeSticky | 0o777, "suid": fs.ModeSetuid | 0o755} {
				info, err := os.Stat(filepath.Join(dir, path))
				if err != nil || info.Mode() != want {
					t.Errorf("%s: %v, %v, want %v", path, info.Mode(), err, want)
				}
			}
		})
	}
}

// An overlay's upper directory can't be on an overlay: errand says so, and copies.
func TestNodeOverlayOnOverlay(t *testing.T) {
	srv := startRegistry(t)
	push(t, srv, "library/busybox:latest", busybox)
	base := t.TempDir()
	for _, d := range []string{"lower", "upper", "work", "merged"} {
		must(t, os.Mkdir(filepath.Join(base, d), 0o755))
	}
	merged := filepath.Join(base, "merged")
	m := overlayMount([]string{filepath.Join(base, "lower")}, filepath.Join(base, "upper"), filepath.Join(base, "work"), nil)
	must(t, m.Mount(merged))
	unmountAtEnd(t, merged)

	s := openStore(t, testConfig(t, srv, func(c *Config) { c.Snapshotter, c.Root = "", filepath.Join(merged, "store") }))
	if s.backend.name != SnapshotterNative {
		t.Fatalf("snapshotter = %s", s.backend.name)
	}
	img, err := s.Pull(context.Background(), "busybox", nil)
	must(t, err)
	dir := mountRoot(t, s, "c1", img)
	if got := in(t, dir, "/bin/echo", "copied"); got != "copied\n" {
		t.Errorf("echo said %q", got)
	}
	must(t, s.Remove(context.Background(), "busybox"))
	if got := in(t, dir, "/bin/echo", "still"); got != "still\n" {
		t.Errorf("echo said %q", got)
	}
}

// The data directory moves from a file system without overlays to one with: images are unpacked anew from what was fetched.
func TestNodeSnapshotterChanges(t *testing.T) {
	srv := startRegistry(t)
	push(t, srv, "library/busybox:latest", busybox)
	cfg := nodeConfig(t, srv, "")
	cfg.Snapshotter = SnapshotterNative
	s := openStore(t, cfg)
	_, err := s.Pull(context.Background(), "busybox", nil)
	must(t, err)
	must(t, s.Close())
	cfg.Snapshotter = SnapshotterOverlay
	before := len(srv.Requests())
	s = openStore(t, cfg)
	img, err := s.Get(context.Background(), "busybox")
	must(t, err)
	if got := in(t, mountRoot(t, s, "c1", img), "/bin/echo", "hi"); got != "hi\n" {
		t.Errorf("echo said %q", got)
	}
	if len(srv.Requests()) > before {
		t.Errorf("asked the registry: %v", srv.Requests()[before:])
	}
}

// A full disk, while fetching and while unpacking: the error says so, nothing is left, and the store goes on.
func TestNodeNoSpace(t *testing.T) {
	srv := startRegistry(t)
	push(t, srv, "library/small:1", small("small"))
	push(t, srv, "library/fetch:1", func() (v1.Image, error) { return registry.Big(root, 1, 20<<20) })
	push(t, srv, "library/unpack:1", func() (v1.Image, error) {
		l, err := registry.Layer(root, registry.File{Name: "zeros", Body: bytes.Repeat([]byte{0}, 20<<20)})
		must(t, err)
		return registry.ImageOf("", nil, l)
	})
	dir := t.TempDir()
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"))
	unmountAtEnd(t, dir)
	s := openStore(t, testConfig(t, srv, func(c *Config) { c.Snapshotter, c.Root = "", filepath.Join(dir, "store") }))
	ctx := context.Background()
	for _, ref := range []string{"fetch:1", "unpack:1", "fetch:1"} {
		_, err := s.Service().PullImage(ctx, &runtimeapi.ImageSpec{Image: ref}, nil, nil)
		if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "no space left on device") {
			t.Errorf("%s: %v", ref, err)
		}
		assertEmpty(t, s)
	}
	_, err := s.Pull(ctx, "small:1", nil)
	must(t, err)
}

// Device nodes of an image come out as such, in the layer only; an overlay's whiteouts are devices too.
func TestNodeDevices(t *testing.T) {
	srv := startRegistry(t)
	push(t, srv, "library/a:1", func() (v1.Image, error) {
		l, err := registry.Layer(root, registry.File{Name: "null", Type: tar.TypeChar, Major: 1, Minor: 3, Mode: 0o666})
		must(t, err)
		return registry.ImageOf("", nil, l)
	})
	s := openStore(t, nodeConfig(t, srv, ""))
	img, err := s.Pull(context.Background(), "a:1", nil)
	must(t, err)
	info, err := os.Lstat(filepath.Join(mountRoot(t, s, "c1", img), "null"))
	must(t, err)
	if info.Mode()&fs.ModeCharDevice == 0 || info.Sys().(*syscall.Stat_t).Rdev != unix.Mkdev(1, 3) {
		t.Errorf("null is %s", info.Mode())
	}
}

// Probing leaves neither mounts nor files.
func TestNodeProbeLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	options, err := probeOverlay(dir)
	must(t, err)
	if !strings.Contains(strings.Join(options, ","), "volatile") {
		t.Errorf("options = %v", options)
	}
	left, err := os.ReadDir(dir)
	must(t, err)
	if len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if _, err := probeOverlay(filepath.Join(dir, "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("err = %v", err)
	}
}
