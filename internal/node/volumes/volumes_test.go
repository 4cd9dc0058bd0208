package volumes

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

func TestSetupDataVolumes(t *testing.T) {
	bin := configMap("bin", map[string]string{"text": "t"})
	bin.BinaryData = map[string][]byte{"raw": {0, 1}}
	w := newWorld(t,
		configMap("cm", map[string]string{"a": "1", "b": "2"}),
		bin,
		secret("sec", map[string]string{"user": "u", "pass": "p"}),
	)
	pod := podWith(
		configMapVolume("all", "cm"),
		configMapVolume("binary", "bin"),
		secretVolume("secret", "sec"),
		v1.Volume{Name: "items", VolumeSource: v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{
			LocalObjectReference: v1.LocalObjectReference{Name: "cm"},
			Items:                []v1.KeyToPath{{Key: "b", Path: "deep/er/file", Mode: ptr.To[int32](0o400)}},
		}}},
		v1.Volume{Name: "gone", VolumeSource: v1.VolumeSource{Secret: &v1.SecretVolumeSource{
			SecretName: "none", Optional: ptr.To(true),
		}}},
		v1.Volume{Name: "down", VolumeSource: v1.VolumeSource{DownwardAPI: &v1.DownwardAPIVolumeSource{
			Items: []v1.DownwardAPIVolumeFile{
				{Path: "name", FieldRef: &v1.ObjectFieldSelector{FieldPath: "metadata.name"}},
				{Path: "labels", FieldRef: &v1.ObjectFieldSelector{FieldPath: "metadata.labels"}},
			},
		}}},
		v1.Volume{Name: "mixed", VolumeSource: v1.VolumeSource{Projected: &v1.ProjectedVolumeSource{
			Sources: []v1.VolumeProjection{
				{ServiceAccountToken: &v1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: ptr.To[int64](3600)}},
				{ConfigMap: &v1.ConfigMapProjection{LocalObjectReference: v1.LocalObjectReference{Name: "cm"}}},
				{Secret: &v1.SecretProjection{
					LocalObjectReference: v1.LocalObjectReference{Name: "sec"},
					Items:                []v1.KeyToPath{{Key: "user", Path: "a"}},
				}},
				{DownwardAPI: &v1.DownwardAPIProjection{Items: []v1.DownwardAPIVolumeFile{
					{Path: "ns", FieldRef: &v1.ObjectFieldSelector{FieldPath: "metadata.namespace"}},
				}}},
			},
		}}},
	)
	vols := w.mustSetup(t, pod)

	want := map[string]map[string]string{
		"all":    {"a": "1", "b": "2"},
		"binary": {"text": "t", "raw": "\x00\x01"},
		"secret": {"user": "u", "pass": "p"},
		"items":  {"deep/er/file": "2"},
		"gone":   {},
		"down":   {"name": "p", "labels": `app="x"`},
		"mixed":  {"token": "token-1", "a": "u", "b": "2", "ns": "ns"},
	}
	got := map[string]map[string]string{}
	for name, v := range vols {
		if !v.ReadOnly || !v.Managed {
			t.Errorf("volume %s: %+v, want read-only and managed", name, v)
		}
		got[name] = contents(t, v.HostPath)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("contents (-want +got):\n%s", diff)
	}
	info, err := os.Stat(filepath.Join(vols["items"].HostPath, "deep/er/file"))
	if err != nil || info.Mode().Perm() != 0o400 {
		t.Errorf("mode of an item: %v, %v; want 0400", info, err)
	}
	wantPath := filepath.Join(w.cfg.RootDir, "uid-1/volumes/kubernetes.io~configmap/all")
	if vols["all"].HostPath != wantPath {
		t.Errorf("path %s, want %s", vols["all"].HostPath, wantPath)
	}
	if again := w.mustSetup(t, pod); !cmp.Equal(vols, again) {
		t.Errorf("a second Setup answered otherwise:\n%s", cmp.Diff(vols, again))
	}
	if w.tokens != 1 {
		t.Errorf("%d tokens were requested, want 1", w.tokens)
	}
}

func TestSetupErrorsReadAsTheKubelets(t *testing.T) {
	w := newWorld(t, configMap("cm", map[string]string{"a": "1"}), secret("sec", nil))
	w.fail = errors.New("no such account")
	hostPath := v1.Volume{Name: "h", VolumeSource: v1.VolumeSource{HostPath: &v1.HostPathVolumeSource{
		Path: "/no/such/path", Type: ptr.To(v1.HostPathDirectory),
	}}}
	badKey := configMapVolume("k", "cm")
	badKey.ConfigMap.Items = []v1.KeyToPath{{Key: "zz", Path: "zz"}}
	badSecretKey := secretVolume("k", "sec")
	badSecretKey.Secret.Items = []v1.KeyToPath{{Key: "zz", Path: "zz"}}
	for _, tc := range []struct {
		volume v1.Volume
		want   string
	}{
		{configMapVolume("x", "y"), `MountVolume.SetUp failed for volume "x" : configmap "y" not found`},
		{secretVolume("x", "y"), `MountVolume.SetUp failed for volume "x" : secret "y" not found`},
		{badKey, `MountVolume.SetUp failed for volume "k" : configmap references non-existent config key: zz`},
		{badSecretKey, `MountVolume.SetUp failed for volume "k" : references non-existent secret key: zz`},
		{tokenVolume("t", 600), `MountVolume.SetUp failed for volume "t" : failed to fetch token: no such account`},
		{hostPath, `MountVolume.SetUp failed for volume "h" : hostPath type check failed, /no/such/path is not a directory, unable to determine its type: stat /no/such/path: no such file or directory`},
		{
			v1.Volume{Name: "d", VolumeSource: v1.VolumeSource{NFS: &v1.NFSVolumeSource{}}},
			`MountVolume.SetUp failed for volume "d" : volume "d": nfs volumes are not supported by errand; use configMap, secret, projected, downwardAPI, emptyDir, hostPath, persistentVolumeClaim, ephemeral or image`,
		},
	} {
		vols, err := w.Setup(t.Context(), podWith(tc.volume, emptyDirVolume("fine")), Info{})
		if err == nil || err.Error() != tc.want {
			t.Errorf("error %q\n want %q", err, tc.want)
		}
		if vols != nil {
			t.Errorf("volumes %v beside an error", vols)
		}
		var setup *SetupError
		if !errors.As(err, &setup) || setup.Volume != tc.volume.Name {
			t.Errorf("no SetupError for %q in %v", tc.volume.Name, err)
		}
	}
}

// A pod that waits for its ConfigMap is told when it appears, and its volume
// follows each later change.
func TestChangesReachThePod(t *testing.T) {
	w := newWorld(t)
	pod := podWith(configMapVolume("v", "cm"))
	if _, err := w.Setup(t.Context(), pod, Info{}); err == nil {
		t.Fatal("Setup succeeded without its ConfigMap")
	}
	api := w.client.CoreV1().ConfigMaps("ns")
	cm, err := api.Create(t.Context(), configMap("cm", map[string]string{"a": "1", "b": "x"}), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w.awaitChange(t, pod)
	root := w.mustSetup(t, pod)["v"].HostPath
	if diff := cmp.Diff(map[string]string{"a": "1", "b": "x"}, contents(t, root)); diff != "" {
		t.Error(diff)
	}
	cm.Data = map[string]string{"a": "2", "c": "y"}
	cm.ResourceVersion = "2"
	if _, err := api.Update(t.Context(), cm, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.awaitChange(t, pod)
	w.mustRefresh(t, pod)
	if diff := cmp.Diff(map[string]string{"a": "2", "c": "y"}, contents(t, root)); diff != "" {
		t.Error(diff)
	}
	if err := api.Delete(t.Context(), "cm", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.awaitChange(t, pod)
	if err := w.Refresh(t.Context(), pod, Info{}); err == nil {
		t.Error("Refresh did not report the missing ConfigMap")
	}
	if diff := cmp.Diff(map[string]string{"a": "2", "c": "y"}, contents(t, root)); diff != "" {
		t.Errorf("a deleted ConfigMap's volume changed: %s", diff)
	}
	if err := w.Teardown(t.Context(), pod.UID); err != nil {
		t.Fatal(err)
	}
	if len(w.users) != 0 || len(w.pods) != 0 {
		t.Errorf("after Teardown %d objects and %d pods are still known", len(w.users), len(w.pods))
	}
}

func TestImmutableObjectsAreReadOnce(t *testing.T) {
	cm := configMap("cm", map[string]string{"a": "1"})
	cm.Immutable = ptr.To(true)
	w := newWorld(t, cm)
	pod := podWith(configMapVolume("v", "cm"))
	root := w.mustSetup(t, pod)["v"].HostPath
	api := w.client.CoreV1().ConfigMaps("ns")
	if err := api.Delete(t.Context(), "cm", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.awaitChange(t, pod)
	w.mustRefresh(t, pod)
	if diff := cmp.Diff(map[string]string{"a": "1"}, contents(t, root)); diff != "" {
		t.Error(diff)
	}
}

func TestDownwardAPIFollowsThePod(t *testing.T) {
	w := newWorld(t)
	pod := podWith(v1.Volume{Name: "d", VolumeSource: v1.VolumeSource{DownwardAPI: &v1.DownwardAPIVolumeSource{
		Items: []v1.DownwardAPIVolumeFile{{Path: "l", FieldRef: &v1.ObjectFieldSelector{FieldPath: "metadata.labels['app']"}}},
	}}})
	root := w.mustSetup(t, pod)["d"].HostPath
	pod.Labels["app"] = "y"
	w.mustRefresh(t, pod)
	if got := contents(t, root)["l"]; got != "y" {
		t.Errorf("label %q, want y", got)
	}
}

// What a crash in the middle of a write leaves must not stop the next one.
func TestInterruptedWriteIsSwept(t *testing.T) {
	dir := t.TempDir()
	objects := configMap("cm", map[string]string{"a": "1"})
	pod := podWith(configMapVolume("v", "cm"))
	root := newWorldIn(t, Config{RootDir: dir}, objects).mustSetup(t, pod)["v"].HostPath
	mustWrite(t, filepath.Join(root, "..2026_01_01_00_00_00.123/a"), "half")
	if err := os.Symlink("..2026_01_01_00_00_00.123", filepath.Join(root, "..data_tmp")); err != nil {
		t.Fatal(err)
	}
	next := newWorldIn(t, Config{RootDir: dir}, configMap("cm", map[string]string{"a": "2"}))
	next.mustSetup(t, pod)
	if got := contents(t, root)["a"]; got != "2" {
		t.Errorf("content %q, want 2", got)
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 3 { // a, ..data and the directory it leads to
		t.Errorf("left in the volume: %v", entries)
	}
}

func TestEmptyDirKeepsWhatItHolds(t *testing.T) {
	w := newWorld(t)
	pod := podWith(emptyDirVolume("e"), v1.Volume{Name: "implied"})
	vols := w.mustSetup(t, pod)
	root := vols["e"].HostPath
	info, err := os.Stat(root)
	if err != nil || info.Mode().Perm() != 0o777 {
		t.Fatalf("mode %v, %v; want 0777 whatever the umask", info, err)
	}
	if vols["e"].ReadOnly || len(vols) != 2 {
		t.Errorf("volumes %+v", vols)
	}
	mustWrite(t, filepath.Join(root, "f"), "kept")
	w.mustSetup(t, pod)
	if diff := cmp.Diff(map[string]string{"f": "kept"}, contents(t, root)); diff != "" {
		t.Error(diff)
	}
}

func TestFSGroupOwnsVolumes(t *testing.T) {
	w := newWorld(t, configMap("cm", map[string]string{"a": "1"}))
	pod := podWith(emptyDirVolume("e"), configMapVolume("v", "cm"), tokenVolume("t", 600))
	pod.Spec.SecurityContext = &v1.PodSecurityContext{FSGroup: ptr.To(int64(os.Getgid()))}
	vols := w.mustSetup(t, pod)
	for path, want := range map[string]os.FileMode{
		vols["e"].HostPath:                         os.ModeDir | os.ModeSetgid | 0o777,
		vols["v"].HostPath:                         os.ModeDir | os.ModeSetgid | 0o777,
		filepath.Join(vols["v"].HostPath, "a"):     0o644,
		filepath.Join(vols["t"].HostPath, "token"): 0o640,
	} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != want {
			t.Errorf("%s has mode %v, want %v", path, info.Mode(), want)
		}
	}
}

func TestTeardownLeavesNothingAndNothingElse(t *testing.T) {
	w := newWorld(t, secret("sec", map[string]string{"a": "1"}))
	pod := podWith(emptyDirVolume("e"), secretVolume("s", "sec"))
	root := w.mustSetup(t, pod)["e"].HostPath
	outside := filepath.Join(t.TempDir(), "precious")
	mustWrite(t, filepath.Join(outside, "f"), "x")
	mustWrite(t, filepath.Join(root, "a/b/c"), "x")
	if err := errors.Join(
		os.Symlink(outside, filepath.Join(root, "link")),
		os.Chmod(filepath.Join(root, "a/b"), 0),
	); err != nil {
		t.Fatal(err)
	}
	hosts := filepath.Join(w.podDir(pod.UID), "etc-hosts")
	mustWrite(t, hosts, "")
	for range 2 {
		if err := w.Teardown(t.Context(), pod.UID); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(outside, "f")); err != nil {
			t.Fatalf("Teardown went through a link: %v", err)
		}
		if _, err := os.Stat(hosts); err != nil {
			t.Fatalf("Teardown removed what is not a volume: %v", err)
		}
	}
	if entries, _ := os.ReadDir(w.podDir(pod.UID)); len(entries) != 1 {
		t.Errorf("left: %v", entries)
	}
	if uids, err := w.Pods(); err != nil || !cmp.Equal(uids, []types.UID{pod.UID}) {
		t.Errorf("Pods: %v, %v", uids, err)
	}
	if err := w.Remove(t.Context(), pod.UID); err != nil {
		t.Fatal(err)
	}
	if uids, err := w.Pods(); err != nil || len(uids) != 0 {
		t.Errorf("Pods after Remove: %v, %v", uids, err)
	}
}

func TestUIDsThatAreNoNamesAreRefused(t *testing.T) {
	w := newWorld(t)
	for _, uid := range []types.UID{"", ".", "..", "../x", "a/b", "a\x00"} {
		pod := podWith(emptyDirVolume("e"))
		pod.UID = uid
		if _, err := w.Setup(t.Context(), pod, Info{}); !errors.Is(err, errBadUID) {
			t.Errorf("Setup of %q: %v", uid, err)
		}
		if err := w.Remove(t.Context(), uid); !errors.Is(err, errBadUID) {
			t.Errorf("Remove of %q: %v", uid, err)
		}
	}
}
