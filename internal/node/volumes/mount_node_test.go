//go:build node

package volumes

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"
)

// nodeWorld has secrets on a tmpfs of its own and leaves no mount behind.
func nodeWorld(t *testing.T) *world {
	t.Helper()
	dir := t.TempDir()
	w := newWorldIn(t, Config{RootDir: filepath.Join(dir, "pods"), MemoryDir: filepath.Join(dir, "memory")},
		configMap("cm", map[string]string{"a": "1"}),
		secret("sec", map[string]string{"run.sh": "#!/bin/sh\n"}))
	t.Cleanup(func() {
		if err := errors.Join(w.Remove(t.Context(), "uid-1"), unix.Unmount(w.cfg.MemoryDir, 0)); err != nil {
			t.Error(err)
		}
		if left := mountsBelow(t, dir); len(left) != 0 {
			t.Errorf("mounts left: %v", left)
		}
	})
	return w
}

func mountsBelow(t *testing.T, dir string) []string {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var points []string
	for line := range strings.Lines(string(data)) {
		if point := strings.Fields(line)[4]; strings.HasPrefix(point, dir+"/") {
			points = append(points, point)
		}
	}
	return points
}

func TestSecretsLieInMemory(t *testing.T) {
	w := nodeWorld(t)
	pod := podWith(secretVolume("s", "sec"), tokenVolume("t", 600), configMapVolume("v", "cm"))
	for name, vol := range w.mustSetup(t, pod) {
		onTmpfs, err := usableTmpfs(vol.HostPath)
		if err != nil || onTmpfs != (name != "v") {
			t.Errorf("volume %s on tmpfs: %v, %v", name, onTmpfs, err)
		}
	}
	// The next errand finds the mount and makes no second one.
	again := newWorldIn(t, Config{RootDir: w.cfg.RootDir, MemoryDir: w.cfg.MemoryDir}, secret("sec", nil), configMap("cm", nil))
	again.mustSetup(t, pod)
	if points := mountsBelow(t, filepath.Dir(w.cfg.RootDir)); len(points) != 1 {
		t.Errorf("mounts: %v, want one", points)
	}
}

func TestMemoryEmptyDir(t *testing.T) {
	w := nodeWorld(t)
	vol := emptyDirVolume("m")
	vol.EmptyDir.Medium = v1.StorageMediumMemory
	vol.EmptyDir.SizeLimit = ptr.To(resource.MustParse("1Mi"))
	pod := podWith(vol)
	pod.Spec.SecurityContext = &v1.PodSecurityContext{FSGroup: ptr.To[int64](1234)}
	root := w.mustSetup(t, pod)["m"].HostPath
	mustWrite(t, filepath.Join(root, "f"), "kept")
	w.mustSetup(t, pod)
	if got := contents(t, root)["f"]; got != "kept" {
		t.Error("a second Setup emptied the volume")
	}
	var fs unix.Statfs_t
	var st unix.Stat_t
	if err := errors.Join(unix.Statfs(root, &fs), unix.Stat(root, &st)); err != nil {
		t.Fatal(err)
	}
	if size := int64(fs.Blocks) * fs.Bsize; fs.Type != unix.TMPFS_MAGIC || size != 1<<20 {
		t.Errorf("type %x of %d bytes, want a tmpfs of 1 MiB", fs.Type, size)
	}
	if st.Gid != 1234 || st.Mode&0o7777 != 0o3777 {
		t.Errorf("gid %d, mode %o; want 1234, 3777", st.Gid, st.Mode&0o7777)
	}
}

func TestSubPathsArePinned(t *testing.T) {
	w := nodeWorld(t)
	pod := podWith(emptyDirVolume("e"), configMapVolume("v", "cm"))
	vols := w.mustSetup(t, pod)
	c := &v1.Container{Name: "c", VolumeMounts: []v1.VolumeMount{
		{Name: "e", MountPath: "/e", SubPathExpr: "$(WHO)/dir"},
		{Name: "v", MountPath: "/v", SubPath: "a"},
	}}
	env := MountOptions{Env: map[string]string{"WHO": "me"}}
	mounts, err := w.Mounts(pod, c, vols, env)
	if err != nil {
		t.Fatal(err)
	}
	want := filepath.Join(w.podDir(pod.UID), "volume-subpaths/e/c/0")
	if mounts[0].HostPath != want {
		t.Errorf("path %s, want %s", mounts[0].HostPath, want)
	}
	// What the container does to its directory afterwards changes nothing.
	dir := filepath.Join(vols["e"].HostPath, "me/dir")
	if err := errors.Join(os.Rename(dir, dir+".old"), os.Symlink("/etc", dir)); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, filepath.Join(dir+".old", "f"), "pinned")
	if got := contents(t, mounts[0].HostPath)["f"]; got != "pinned" {
		t.Errorf("the pin shows %v", contents(t, mounts[0].HostPath))
	}
	if _, err := w.Mounts(pod, c, vols, env); err == nil || !strings.Contains(err.Error(), "it leads out of the volume") {
		t.Errorf("a link to /etc was followed: %v", err)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	before := len(mountsBelow(t, w.cfg.RootDir))
	if _, err := w.Mounts(pod, c, vols, env); err != nil {
		t.Fatal(err)
	}
	if after := len(mountsBelow(t, w.cfg.RootDir)); after != before {
		t.Errorf("%d mounts after a restart of the container, %d before", after, before)
	}
	if data, err := os.ReadFile(mounts[1].HostPath); err != nil || string(data) != "1" {
		t.Errorf("file sub-path: %q, %v", data, err)
	}
}

// A container with bidirectional propagation, or the administrator, may have
// mounted anything inside a volume: teardown detaches it and spares its content.
func TestTeardownSparesOtherMounts(t *testing.T) {
	w := nodeWorld(t)
	pod := podWith(emptyDirVolume("e"))
	root := w.mustSetup(t, pod)["e"].HostPath
	precious := t.TempDir()
	mustWrite(t, filepath.Join(precious, "f"), "x")
	mustWrite(t, filepath.Join(root, "sub/file"), "")
	point := filepath.Join(root, "sub/point")
	if err := os.Mkdir(point, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, m := range [][2]string{
		{precious, point},
		{precious, point}, // twice over
		{filepath.Join(precious, "f"), filepath.Join(root, "sub/file")},
	} {
		if err := unix.Mount(m[0], m[1], "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Teardown(t.Context(), pod.UID); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(precious, "f")); err != nil {
		t.Fatalf("the mounted directory's content is gone: %v", err)
	}
	if _, err := os.Stat(w.podDir(pod.UID)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the pod's directory is left: %v", err)
	}
}
