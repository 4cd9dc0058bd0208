package volumes

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func claimVolume(name, claim string, readOnly bool) v1.Volume {
	return v1.Volume{Name: name, VolumeSource: v1.VolumeSource{
		PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{ClaimName: claim, ReadOnly: readOnly},
	}}
}

func boundClaim(name, volume string) *v1.PersistentVolumeClaim {
	return &v1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: "claim"},
		Spec:       v1.PersistentVolumeClaimSpec{VolumeName: volume},
		Status:     v1.PersistentVolumeClaimStatus{Phase: v1.ClaimBound},
	}
}

// bindCompleted is a claim that has its volume, whatever its phase says.
func bindCompleted(phase v1.PersistentVolumeClaimPhase) *v1.PersistentVolumeClaim {
	c := boundClaim("c", "v")
	c.Annotations, c.Status.Phase = map[string]string{"pv.kubernetes.io/bind-completed": "yes"}, phase
	return c
}

func localVolume(name, path string, change ...func(*v1.PersistentVolume)) *v1.PersistentVolume {
	pv := &v1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: v1.PersistentVolumeSpec{
			ClaimRef:               &v1.ObjectReference{UID: "claim"},
			PersistentVolumeSource: v1.PersistentVolumeSource{Local: &v1.LocalVolumeSource{Path: path}},
		},
	}
	for _, f := range change {
		f(pv)
	}
	return pv
}

func TestClaims(t *testing.T) {
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "file")
	mustWrite(t, file, "")
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	source := func(s v1.PersistentVolumeSource) func(*v1.PersistentVolume) {
		return func(pv *v1.PersistentVolume) { pv.Spec.PersistentVolumeSource = s }
	}
	for name, tc := range map[string]struct {
		claim *v1.PersistentVolumeClaim
		pv    *v1.PersistentVolume
		vol   v1.Volume
		want  Volume
		err   string
	}{
		"local": {boundClaim("c", "v"), localVolume("v", dir), claimVolume("d", "c", false), Volume{HostPath: dir, Managed: true}, ""},
		// What is mounted must be what is handed to the pod's group.
		"by a link": {boundClaim("c", "v"), localVolume("v", link), claimVolume("d", "c", false), Volume{HostPath: dir, Managed: true}, ""},
		"read only": {boundClaim("c", "v"), localVolume("v", dir), claimVolume("d", "c", true), Volume{HostPath: dir, Managed: true, ReadOnly: true}, ""},
		"hostPath": {boundClaim("c", "v"), localVolume("v", "", source(v1.PersistentVolumeSource{HostPath: &v1.HostPathVolumeSource{Path: dir}})),
			claimVolume("d", "c", false), Volume{HostPath: dir}, ""},
		"no claim": {boundClaim("x", "v"), localVolume("v", dir), claimVolume("d", "c", false), Volume{}, `persistentvolumeclaim "c" not found`},
		"unbound": {&v1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "c"}, Status: v1.PersistentVolumeClaimStatus{Phase: v1.ClaimPending}},
			localVolume("v", dir), claimVolume("d", "c", false), Volume{}, `persistentvolumeclaim "c" is not bound: it is Pending`},
		"bound, but for the phase": {bindCompleted(v1.ClaimPending), localVolume("v", dir), claimVolume("d", "c", false), Volume{HostPath: dir, Managed: true}, ""},
		"lost":                     {bindCompleted(v1.ClaimLost), localVolume("v", dir), claimVolume("d", "c", false), Volume{}, `persistentvolumeclaim "c" is not bound: it is Lost`},
		"being deleted": {func() *v1.PersistentVolumeClaim {
			c := boundClaim("c", "v")
			c.DeletionTimestamp, c.Finalizers = &metav1.Time{Time: time.Unix(1, 0)}, []string{"kubernetes.io/pvc-protection"}
			return c
		}(), localVolume("v", dir), claimVolume("d", "c", false), Volume{}, "can't start pod because PVC ns/c is being deleted"},
		"another's volume": {boundClaim("c", "v"), localVolume("v", dir, func(pv *v1.PersistentVolume) { pv.Spec.ClaimRef.UID = "other" }),
			claimVolume("d", "c", false), Volume{}, `persistentvolume "v" is not bound to persistentvolumeclaim "c"`},
		"no directory": {boundClaim("c", "v"), localVolume("v", dir+"/gone"), claimVolume("d", "c", false), Volume{}, `gone" does not exist`},
		"a device":     {boundClaim("c", "v"), localVolume("v", file), claimVolume("d", "c", false), Volume{}, "errand does not mount devices"},
		"block": {boundClaim("c", "v"), localVolume("v", dir, func(pv *v1.PersistentVolume) { pv.Spec.VolumeMode = ptr.To(v1.PersistentVolumeBlock) }),
			claimVolume("d", "c", false), Volume{}, "errand supports Filesystem only"},
		"options": {boundClaim("c", "v"), localVolume("v", dir, func(pv *v1.PersistentVolume) { pv.Spec.MountOptions = []string{"ro"} }),
			claimVolume("d", "c", false), Volume{}, "mountOptions"},
		"of another kind": {boundClaim("c", "v"), localVolume("v", "", source(v1.PersistentVolumeSource{NFS: &v1.NFSVolumeSource{}})),
			claimVolume("d", "c", false), Volume{}, "only hostPath and local PersistentVolumes are"},
		"ephemeral, another's": {boundClaim("p-d", "v"), localVolume("v", dir), v1.Volume{Name: "d", VolumeSource: v1.VolumeSource{Ephemeral: &v1.EphemeralVolumeSource{}}},
			Volume{}, "was not created for pod"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, tc.claim, tc.pv)
			vols, err := w.Setup(t.Context(), podWith(tc.vol), Info{})
			switch {
			case tc.err == "" && err != nil, tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)):
				t.Errorf("%v, want %q", err, tc.err)
			case vols["d"] != tc.want:
				t.Errorf("%+v, want %+v", vols["d"], tc.want)
			}
		})
	}
}

// A pod whose claim is bound late is told of it.
func TestClaimChangesAreTold(t *testing.T) {
	claim := boundClaim("c", "v")
	claim.Status.Phase = v1.ClaimPending
	w := newWorld(t, claim, localVolume("v", t.TempDir()))
	pod := podWith(claimVolume("d", "c", false))
	if _, err := w.Setup(t.Context(), pod, Info{}); err == nil {
		t.Fatal("an unbound claim was set up")
	}
	bound := boundClaim("c", "v")
	bound.ResourceVersion = "2" // the fake API server counts none
	if _, err := w.client.CoreV1().PersistentVolumeClaims("ns").Update(t.Context(), bound, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	for ready := false; !ready; { // the first change told of may be the claim's being there
		w.awaitChange(t, pod)
		_, err := w.Setup(t.Context(), pod, Info{})
		ready = err == nil
	}
}

// The pod's group gets the volume and what is in it, unless it has it already and
// the pod says that this is enough; a teardown leaves all as it is.
func TestClaimGroup(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("needs root: only it gives files to other groups")
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "sub", "file")
	mustWrite(t, file, "data")
	w := newWorld(t, boundClaim("c", "v"), localVolume("v", dir))
	group := func() uint32 {
		var st unix.Stat_t
		if err := unix.Stat(file, &st); err != nil {
			t.Fatal(err)
		}
		return st.Gid
	}
	pod := podWith(claimVolume("d", "c", false))
	pod.Spec.SecurityContext = &v1.PodSecurityContext{FSGroup: ptr.To[int64](4711)}
	w.mustSetup(t, pod)
	if group() != 4711 {
		t.Errorf("the file's group is %d", group())
	}
	if err := os.Chown(file, 0, 0); err != nil {
		t.Fatal(err)
	}
	if err := w.Remove(t.Context(), pod.UID); err != nil {
		t.Fatal(err)
	}
	pod.Spec.SecurityContext.FSGroupChangePolicy = ptr.To(v1.FSGroupChangeOnRootMismatch)
	w.mustSetup(t, pod)
	if group() != 0 {
		t.Error("the whole volume was gone through, though its root was right")
	}
	if data, err := os.ReadFile(file); err != nil || string(data) != "data" {
		t.Errorf("the data is %q, %v", data, err)
	}
}
