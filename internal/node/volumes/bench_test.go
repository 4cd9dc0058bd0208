package volumes

import (
	"fmt"
	"os"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// BenchmarkServiceAccountVolume makes and removes the volume that every pod has:
// a token, the root CA and the namespace. The API server is a fake whose cost
// is counted in.
func BenchmarkServiceAccountVolume(b *testing.B) {
	w := newWorldIn(b, Config{RootDir: b.TempDir(), MemoryDir: "/dev/shm/errand-bench"},
		configMap("kube-root-ca.crt", map[string]string{"ca.crt": strings.Repeat("x", 1100)}))
	b.Cleanup(func() { _ = os.Remove("/dev/shm/errand-bench") })
	pod := podWith(v1.Volume{Name: "kube-api-access-x", VolumeSource: v1.VolumeSource{Projected: &v1.ProjectedVolumeSource{
		DefaultMode: ptr.To[int32](0o644),
		Sources: []v1.VolumeProjection{
			{ServiceAccountToken: &v1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: ptr.To[int64](3607)}},
			{ConfigMap: &v1.ConfigMapProjection{LocalObjectReference: v1.LocalObjectReference{Name: "kube-root-ca.crt"}}},
			{DownwardAPI: &v1.DownwardAPIProjection{Items: []v1.DownwardAPIVolumeFile{
				{Path: "namespace", FieldRef: &v1.ObjectFieldSelector{FieldPath: "metadata.namespace"}},
			}}},
		},
	}}})
	for i := 0; b.Loop(); i++ {
		pod.UID = types.UID(fmt.Sprint("uid-", i))
		if _, err := w.Setup(b.Context(), pod, Info{}); err != nil {
			b.Fatal(err)
		}
		if err := w.Remove(b.Context(), pod.UID); err != nil {
			b.Fatal(err)
		}
	}
}
