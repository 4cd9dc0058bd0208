package volumes

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"
)

func TestUnsupported(t *testing.T) {
	projected := func(p v1.VolumeProjection) v1.VolumeSource {
		return v1.VolumeSource{Projected: &v1.ProjectedVolumeSource{Sources: []v1.VolumeProjection{p}}}
	}
	for _, tc := range []struct {
		kind   string // "" = supported
		source v1.VolumeSource
	}{
		{"", v1.VolumeSource{}},
		{"", v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}},
		{"", v1.VolumeSource{HostPath: &v1.HostPathVolumeSource{}}},
		{"", v1.VolumeSource{Image: &v1.ImageVolumeSource{Reference: "i"}}},
		{"", v1.VolumeSource{Secret: &v1.SecretVolumeSource{}}},
		{"", projected(v1.VolumeProjection{ServiceAccountToken: &v1.ServiceAccountTokenProjection{}})},
		{"projected.clusterTrustBundle", projected(v1.VolumeProjection{ClusterTrustBundle: &v1.ClusterTrustBundleProjection{}})},
		{"projected.podCertificate", projected(v1.VolumeProjection{PodCertificate: &v1.PodCertificateProjection{}})},
		{"csi", v1.VolumeSource{CSI: &v1.CSIVolumeSource{}}},
		{"", v1.VolumeSource{Ephemeral: &v1.EphemeralVolumeSource{}}},
		{"", v1.VolumeSource{PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{ClaimName: "c"}}},
		{"nfs", v1.VolumeSource{NFS: &v1.NFSVolumeSource{}}},
	} {
		err := Unsupported(podWith(v1.Volume{Name: "v", VolumeSource: tc.source}))
		var unsupported *UnsupportedError
		switch {
		case tc.kind == "" && err != nil:
			t.Errorf("%+v: %v", tc.source, err)
		case tc.kind != "" && (!errors.As(err, &unsupported) || *unsupported != UnsupportedError{"v", tc.kind}):
			t.Errorf("%s: %v", tc.kind, err)
		}
	}
}

func TestHostPathTypes(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	mustWrite(t, file, "")
	sockDir, err := os.MkdirTemp("/tmp", "e")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(sockDir) })
	socket := filepath.Join(sockDir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	is := "hostPath type check failed: %s is not a %s, it's a %s"
	for _, tc := range []struct {
		path string
		kind v1.HostPathType
		want string
	}{
		{dir, v1.HostPathUnset, ""},
		{filepath.Join(dir, "made/unset"), v1.HostPathUnset, ""},
		{dir, v1.HostPathDirectory, ""},
		{file, v1.HostPathDirectory, fmt.Sprintf(is, file, "directory", "File")},
		{dir, v1.HostPathDirectoryOrCreate, ""},
		{file, v1.HostPathDirectoryOrCreate, fmt.Sprintf(is, file, "directory", "File")},
		{filepath.Join(dir, "made/dir"), v1.HostPathDirectoryOrCreate, ""},
		{file, v1.HostPathFile, ""},
		{dir, v1.HostPathFile, fmt.Sprintf(is, dir, "file", "Directory")},
		{filepath.Join(dir, "newfile"), v1.HostPathFileOrCreate, ""},
		{socket, v1.HostPathSocket, ""},
		{file, v1.HostPathSocket, fmt.Sprintf(is, file, "socket file", "File")},
		{socket, v1.HostPathFile, fmt.Sprintf(is, socket, "file", "Socket")},
		{"/dev/null", v1.HostPathCharDev, ""},
		{"/dev/null", v1.HostPathBlockDev, fmt.Sprintf(is, "/dev/null", "block device", "CharDevice")},
		{dir, "Nonsense", "Nonsense is an invalid volume type"},
		{dir + "/../x", v1.HostPathUnset, "invalid HostPath `" + dir + "/../x`: must not contain '..'"},
	} {
		_, err := setupHostPath(&v1.HostPathVolumeSource{Path: tc.path, Type: &tc.kind})
		if got := errText(err); got != tc.want {
			t.Errorf("%s as %q: %q, want %q", tc.path, tc.kind, got, tc.want)
		}
		if _, statErr := os.Stat(tc.path); err == nil && statErr != nil {
			t.Errorf("%s as %q: accepted but %v", tc.path, tc.kind, statErr)
		}
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestMounts(t *testing.T) {
	w := newWorld(t)
	vols := map[string]Volume{
		"rw": {HostPath: "/v/rw", Managed: true},
		"ro": {HostPath: "/v/ro", ReadOnly: true, Managed: true},
		"h":  {HostPath: "/host"},
		"i":  {ReadOnly: true, Image: &runtimeapi.ImageSpec{Image: "sha256:1"}},
	}
	c := &v1.Container{Name: "c", VolumeMounts: []v1.VolumeMount{
		{Name: "rw", MountPath: "/a"},
		{Name: "rw", MountPath: "relative", ReadOnly: true},
		{Name: "ro", MountPath: "/b", SubPath: "."},
		{Name: "h", MountPath: "/c", MountPropagation: ptr.To(v1.MountPropagationBidirectional)},
		{Name: "h", MountPath: "/d", MountPropagation: ptr.To(v1.MountPropagationHostToContainer)},
		{Name: "h", MountPath: "/e", ReadOnly: true, RecursiveReadOnly: ptr.To(v1.RecursiveReadOnlyIfPossible)},
		{Name: "i", MountPath: "/f"},
		{Name: "i", MountPath: "/g", SubPathExpr: "x/$(N)"},
	}}
	got, err := w.Mounts(podWith(), c, vols, MountOptions{Env: map[string]string{"N": "5"}, RecursiveReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	want := []*runtimeapi.Mount{
		{ContainerPath: "/a", HostPath: "/v/rw", SelinuxRelabel: true},
		{ContainerPath: "/relative", HostPath: "/v/rw", Readonly: true, SelinuxRelabel: true},
		{ContainerPath: "/b", HostPath: "/v/ro", Readonly: true, SelinuxRelabel: true},
		{ContainerPath: "/c", HostPath: "/host", Propagation: runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL},
		{ContainerPath: "/d", HostPath: "/host", Propagation: runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER},
		{ContainerPath: "/e", HostPath: "/host", Readonly: true, RecursiveReadOnly: true},
		{ContainerPath: "/f", Image: vols["i"].Image, Readonly: true},
		{ContainerPath: "/g", Image: vols["i"].Image, ImageSubPath: "x/5", Readonly: true},
	}
	if len(got) != len(want) {
		t.Fatalf("%d mounts, want %d", len(got), len(want))
	}
	for i := range want {
		if got[i].String() != want[i].String() {
			t.Errorf("mount %d: %v\n   want %v", i, got[i], want[i])
		}
	}
}

func TestMountErrors(t *testing.T) {
	w := newWorld(t)
	vols := map[string]Volume{"v": {HostPath: t.TempDir()}}
	for _, tc := range []struct {
		mount v1.VolumeMount
		want  string
	}{
		{v1.VolumeMount{Name: "other"}, `cannot find volume "other" to mount into container "c"`},
		{v1.VolumeMount{Name: "v", SubPath: "/abs"}, "error SubPath `/abs` must not be an absolute path"},
		{v1.VolumeMount{Name: "v", SubPath: "a/../../b"}, "unable to provision SubPath `a/../../b`: must not contain '..'"},
		{v1.VolumeMount{Name: "v", SubPathExpr: "$(B)/$(A)/$(B)"}, "missing value for A, B"},
		{v1.VolumeMount{Name: "v", MountPropagation: ptr.To(v1.MountPropagationMode("x"))}, `invalid MountPropagation mode: "x"`},
		{v1.VolumeMount{Name: "v", RecursiveReadOnly: ptr.To(v1.RecursiveReadOnlyEnabled)}, `failed to resolve recursive read-only mode: volume "v" requested recursive read-only mode, but it is not read-only`},
		{v1.VolumeMount{Name: "v", ReadOnly: true, RecursiveReadOnly: ptr.To(v1.RecursiveReadOnlyEnabled)}, `failed to resolve recursive read-only mode: volume "v" requested recursive read-only mode, but it is not supported by the runtime`},
	} {
		c := &v1.Container{Name: "c", VolumeMounts: []v1.VolumeMount{tc.mount}}
		if _, err := w.Mounts(podWith(), c, vols, MountOptions{}); errText(err) != tc.want {
			t.Errorf("%+v: %q, want %q", tc.mount, errText(err), tc.want)
		}
	}
}

func TestSubPathExpr(t *testing.T) {
	env := map[string]string{"POD": "p-1", "N": "2"}
	for expr, want := range map[string]string{
		"$(POD)/$(N)": "p-1/2",
		"$$(POD)":     "$(POD)",
		"plain":       "plain",
		"./$(N)/":     "2",
	} {
		got, err := subPathOf(&v1.VolumeMount{SubPathExpr: expr}, env)
		if err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", expr, got, err, want)
		}
	}
}

func TestMemorySize(t *testing.T) {
	limited := func(limits ...string) *v1.Pod {
		pod := podWith()
		pod.Spec.Containers = nil
		for _, l := range limits {
			c := v1.Container{}
			if l != "" {
				c.Resources.Limits = v1.ResourceList{v1.ResourceMemory: resource.MustParse(l)}
			}
			pod.Spec.Containers = append(pod.Spec.Containers, c)
		}
		return pod
	}
	podLevel := limited("")
	podLevel.Spec.Resources = &v1.ResourceRequirements{Limits: v1.ResourceList{v1.ResourceMemory: resource.MustParse("3Mi")}}
	const mi = 1 << 20
	for _, tc := range []struct {
		name        string
		pod         *v1.Pod
		sizeLimit   string
		allocatable string
		want        int64
	}{
		{"nothing known", limited(""), "", "0", 0},
		{"the node's memory", limited(""), "", "100Mi", 100 * mi},
		{"one container without a limit", limited("1Mi", ""), "", "100Mi", 100 * mi},
		{"all containers limited", limited("1Mi", "2Mi"), "", "100Mi", 3 * mi},
		{"the pod's own limit", podLevel, "", "100Mi", 3 * mi},
		{"sizeLimit", limited("10Mi"), "2Mi", "100Mi", 2 * mi},
		{"a sizeLimit beyond the pod's", limited("10Mi"), "20Mi", "100Mi", 10 * mi},
	} {
		src := &v1.EmptyDirVolumeSource{}
		if tc.sizeLimit != "" {
			src.SizeLimit = ptr.To(resource.MustParse(tc.sizeLimit))
		}
		info := Info{Allocatable: v1.ResourceList{v1.ResourceMemory: resource.MustParse(tc.allocatable)}}
		if got := memorySize(src, tc.pod, info); got != tc.want {
			t.Errorf("%s: %d, want %d", tc.name, got, tc.want)
		}
	}
}

func TestHugePageOptions(t *testing.T) {
	requesting := func(names ...v1.ResourceName) *v1.Pod {
		pod := podWith()
		pod.Spec.Containers[0].Resources.Requests = v1.ResourceList{}
		for _, n := range names {
			pod.Spec.Containers[0].Resources.Requests[n] = resource.MustParse("2Mi")
		}
		return pod
	}
	none := "medium %s: hugePages storage requested, but there is no resource request for huge pages"
	for _, tc := range []struct {
		medium  v1.StorageMedium
		pod     *v1.Pod
		want    string
		wantErr string
	}{
		{"HugePages", requesting("hugepages-2Mi"), "mode=0777,pagesize=2097152", ""},
		{"HugePages-1Gi", requesting("hugepages-2Mi", "hugepages-1Gi"), "mode=0777,pagesize=1073741824", ""},
		{"HugePages", requesting("cpu"), "", fmt.Sprintf(none, "HugePages")},
		{"HugePages-1Gi", requesting("hugepages-2Mi"), "", fmt.Sprintf(none, "HugePages-1Gi")},
		{"HugePages", requesting("hugepages-2Mi", "hugepages-1Gi"), "", "medium: HugePages can't be used if container requests multiple huge page sizes"},
	} {
		got, err := hugePageOptions(&v1.EmptyDirVolumeSource{Medium: tc.medium}, tc.pod)
		if got != tc.want || errText(err) != tc.wantErr {
			t.Errorf("%s: %q, %q; want %q, %q", tc.medium, got, errText(err), tc.want, tc.wantErr)
		}
	}
}

func TestGroupMode(t *testing.T) {
	for _, tc := range []struct {
		mode     os.FileMode
		readOnly bool
		want     os.FileMode
	}{
		{0o600, false, 0o660},
		{0o600, true, 0o640},
		{0o644, true, 0o644},
		{os.ModeDir | 0o700, false, os.ModeSetgid | 0o770},
		{os.ModeDir | 0o755, true, os.ModeSetgid | 0o755},
		{os.ModeDir | os.ModeSticky | 0o777, false, os.ModeSticky | os.ModeSetgid | 0o777},
	} {
		if got := groupMode(tc.mode, tc.readOnly); got != tc.want {
			t.Errorf("%v (read-only %v): %v, want %v", tc.mode, tc.readOnly, got, tc.want)
		}
	}
}

func TestTokenFileMode(t *testing.T) {
	pod := podWith()
	if f := tokenFile(pod, nil, nil, defaults{}); f.Mode != 0o644 || f.FsUser != nil {
		t.Errorf("plain pod: %+v", f)
	}
	pod.Spec.Containers[0].SecurityContext = &v1.SecurityContext{RunAsUser: ptr.To[int64](7)}
	want := int64(7)
	if f := tokenFile(pod, nil, nil, defaults{}); f.Mode != 0o600 || !cmp.Equal(f.FsUser, &want) {
		t.Errorf("one user: %+v", f)
	}
}
