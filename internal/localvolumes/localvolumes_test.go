package localvolumes

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/volume"
	"k8s.io/utils/ptr"
)

func newPlugin(t *testing.T) *Plugin {
	t.Helper()
	p, err := New(filepath.Join(t.TempDir(), "volumes"))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func options(change ...func(*volume.VolumeOptions)) volume.VolumeOptions {
	o := volume.VolumeOptions{
		PersistentVolumeReclaimPolicy: v1.PersistentVolumeReclaimDelete,
		PVName:                        "pvc-1",
		PVC: &v1.PersistentVolumeClaim{Spec: v1.PersistentVolumeClaimSpec{
			AccessModes: []v1.PersistentVolumeAccessMode{v1.ReadWriteMany},
			Resources:   v1.VolumeResourceRequirements{Requests: v1.ResourceList{v1.ResourceStorage: resource.MustParse("1Gi")}},
		}},
	}
	for _, f := range change {
		f(&o)
	}
	return o
}

func (p *Plugin) provision(t *testing.T, o volume.VolumeOptions) (*v1.PersistentVolume, error) {
	t.Helper()
	made, err := p.NewProvisioner(klog.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return made.Provision(nil, nil)
}

func (p *Plugin) mustProvision(t *testing.T) *v1.PersistentVolume {
	t.Helper()
	pv, err := p.provision(t, options())
	if err != nil {
		t.Fatal(err)
	}
	return pv
}

func (p *Plugin) remove(t *testing.T, pv *v1.PersistentVolume) error {
	t.Helper()
	d, err := p.NewDeleter(klog.Background(), volume.NewSpecFromPersistentVolume(pv, false))
	if err != nil {
		t.Fatal(err)
	}
	return d.Delete()
}

func write(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return strings.Join(out, " ")
}

func TestMakesAndRemovesVolumes(t *testing.T) {
	p := newPlugin(t)
	pv := p.mustProvision(t)
	path := filepath.Join(p.dir, "pvc-1")
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o777 {
		t.Fatalf("the directory is %v, %v", info, err)
	}
	if pv.Spec.Local.Path != path || pv.Spec.Capacity.Storage().String() != "1Gi" || pv.Spec.AccessModes[0] != v1.ReadWriteMany {
		t.Errorf("the volume is %+v", pv.Spec)
	}
	// Once more, as after a crash: what is there stays.
	write(t, filepath.Join(path, "data"))
	p.mustProvision(t)
	if got := names(t, path); got != "data" {
		t.Errorf("it holds %q", got)
	}
	for range 2 { // and removing it may be repeated, too
		if err := p.remove(t, pv); err != nil {
			t.Fatal(err)
		}
		if got := names(t, p.dir); got != "" {
			t.Errorf("there is still %q", got)
		}
	}
}

func TestRefusesWhatItCannotGive(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*volume.VolumeOptions)
		want   string
	}{
		"block": {func(o *volume.VolumeOptions) { o.PVC.Spec.VolumeMode = ptr.To(v1.PersistentVolumeBlock) },
			"errand.dev/local does not support block volume provisioning: set spec.volumeMode to Filesystem"},
		"selector": {func(o *volume.VolumeOptions) { o.PVC.Spec.Selector = &metav1.LabelSelector{} }, "spec.selector chooses among volumes that exist"},
		"source":   {func(o *volume.VolumeOptions) { o.PVC.Spec.DataSourceRef = &v1.TypedObjectReference{} }, "spec.dataSource"},
		"attributes": {func(o *volume.VolumeOptions) { o.PVC.Spec.VolumeAttributesClassName = ptr.To("fast") },
			"spec.volumeAttributesClassName is not supported"},
		"parameters": {func(o *volume.VolumeOptions) { o.Parameters = map[string]string{"type": "ssd", "iops": "3"} }, "doesn't know: iops, type"},
		"name":       {func(o *volume.VolumeOptions) { o.PVName = "../x" }, "can't name a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlugin(t)
			_, err := p.provision(t, options(tc.change))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want %q", err, tc.want)
			}
			if got := names(t, p.dir); got != "" {
				t.Errorf("it made %q", got)
			}
		})
	}
}

// Whatever a PersistentVolume says, nothing is removed but what its own name stands for.
func TestRemovesNothingElse(t *testing.T) {
	p := newPlugin(t)
	other := filepath.Join(t.TempDir(), "other")
	if err := os.Mkdir(other, 0o700); err != nil {
		t.Fatal(err)
	}
	p.mustProvision(t)
	for name, source := range map[string]v1.PersistentVolumeSource{
		"elsewhere":       {Local: &v1.LocalVolumeSource{Path: other}},
		"another's":       {Local: &v1.LocalVolumeSource{Path: filepath.Join(p.dir, "pvc-1")}},
		"all":             {Local: &v1.LocalVolumeSource{Path: p.dir}},
		"of another kind": {HostPath: &v1.HostPathVolumeSource{Path: filepath.Join(p.dir, "pvc-2")}},
	} {
		err := p.remove(t, &v1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pvc-2"}, Spec: v1.PersistentVolumeSpec{PersistentVolumeSource: source}})
		if err == nil || !strings.Contains(err.Error(), "errand removes only volumes that it made") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := os.Stat(other); err != nil || names(t, p.dir) != "pvc-1" {
		t.Errorf("%v; left are %q", err, names(t, p.dir))
	}
}

func TestSweep(t *testing.T) {
	p := newPlugin(t)
	for _, name := range []string{"known", "known-empty", "unknown", "unknown-empty", removing + "half"} {
		if err := os.Mkdir(filepath.Join(p.dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(name, "-empty") {
			write(t, filepath.Join(p.dir, name, "data"))
		}
	}
	if err := p.Sweep(func(name string) bool { return strings.HasPrefix(name, "known") }); err != nil {
		t.Fatal(err)
	}
	// Data is kept even if no volume tells of it: the store may be another than
	// that which knew it.
	if got := names(t, p.dir); got != "known known-empty unknown" {
		t.Errorf("left are %q", got)
	}
}

func TestFinalizerFollowsPolicy(t *testing.T) {
	const own = "kubernetes.io/pv-controller"
	for name, tc := range map[string]struct {
		policy     v1.PersistentVolumeReclaimPolicy
		finalizers string
		by         string
		going      bool
		want       string // "same": nothing to do
	}{
		"removed with it":     {v1.PersistentVolumeReclaimDelete, own, Provisioner, false, "same"},
		"now to be removed":   {v1.PersistentVolumeReclaimDelete, "a", Provisioner, false, "a " + own},
		"too late to hold it": {v1.PersistentVolumeReclaimDelete, "a", Provisioner, true, "same"},
		"now to be kept":      {v1.PersistentVolumeReclaimRetain, "a " + own, Provisioner, true, "a"},
		"kept":                {v1.PersistentVolumeReclaimRetain, "a", Provisioner, false, "same"},
		"another's":           {v1.PersistentVolumeReclaimRetain, own, "example.com/p", false, "same"},
	} {
		pv := &v1.PersistentVolume{Spec: v1.PersistentVolumeSpec{PersistentVolumeReclaimPolicy: tc.policy}}
		pv.Annotations = map[string]string{"pv.kubernetes.io/provisioned-by": tc.by}
		pv.Finalizers = strings.Fields(tc.finalizers)
		if tc.going {
			pv.DeletionTimestamp = &metav1.Time{}
		}
		got := "same"
		if better := corrected(pv); better != nil {
			got = strings.Join(better.Finalizers, " ")
		}
		if got != tc.want || strings.Join(pv.Finalizers, " ") != tc.finalizers {
			t.Errorf("%s: %q, want %q; before: %q", name, got, tc.want, pv.Finalizers)
		}
	}
}
