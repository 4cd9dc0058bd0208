package localvolumes

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kubernetes/pkg/volume"
	"k8s.io/utils/ptr"
)

// provisioner makes the volume of one claim.
type provisioner struct {
	dir     string
	options volume.VolumeOptions
}

// Provision implements volume.Provisioner. It may be repeated for a claim.
func (p *provisioner) Provision(_ *v1.Node, topologies []v1.TopologySelectorTerm) (*v1.PersistentVolume, error) {
	if err := refusal(p.options, topologies); err != nil {
		return nil, err
	}
	if err := checkName(p.options.PVName); err != nil {
		return nil, err
	}
	path := filepath.Join(p.dir, p.options.PVName)
	if err := makeDir(path); err != nil {
		return nil, fmt.Errorf("make the volume's directory: %w", err)
	}
	return persistentVolume(p.options, path), nil
}

// refusal names all that is asked for and can't be given, or is nil.
func refusal(o volume.VolumeOptions, topologies []v1.TopologySelectorTerm) error {
	claim := &o.PVC.Spec
	var errs []error
	refuse := func(asked bool, format string, args ...any) {
		if asked {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	refuse(ptr.Deref(claim.VolumeMode, v1.PersistentVolumeFilesystem) == v1.PersistentVolumeBlock,
		"%s does not support block volume provisioning: set spec.volumeMode to Filesystem", Provisioner)
	refuse(claim.Selector != nil, "spec.selector chooses among volumes that exist: %s can't make one to match it", Provisioner)
	refuse(claim.DataSource != nil || claim.DataSourceRef != nil, "spec.dataSource and spec.dataSourceRef are not supported by %s", Provisioner)
	refuse(ptr.Deref(claim.VolumeAttributesClassName, "") != "", "spec.volumeAttributesClassName is not supported by %s", Provisioner)
	refuse(len(o.Parameters) > 0, "the StorageClass has parameters that %s doesn't know: %s",
		Provisioner, strings.Join(slices.Sorted(maps.Keys(o.Parameters)), ", "))
	refuse(len(topologies) > 0, "the StorageClass's allowedTopologies are not supported by %s: there is one machine", Provisioner)
	return errors.Join(errs...)
}

// persistentVolume describes the directory. Its kind is local, not hostPath:
// pods' fsGroup holds for it, and one that somebody removed is missed rather than
// made anew, empty. The affinity, which that kind must have, doesn't name the
// node, whose name follows the machine's: it would lock the data up when that
// changes.
func persistentVolume(o volume.VolumeOptions, path string) *v1.PersistentVolume {
	modes := o.PVC.Spec.AccessModes
	if len(modes) == 0 {
		modes = []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce}
	}
	return &v1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: o.PVName},
		Spec: v1.PersistentVolumeSpec{
			PersistentVolumeReclaimPolicy: o.PersistentVolumeReclaimPolicy,
			AccessModes:                   modes,
			Capacity:                      v1.ResourceList{v1.ResourceStorage: o.PVC.Spec.Resources.Requests[v1.ResourceStorage]},
			VolumeMode:                    ptr.To(v1.PersistentVolumeFilesystem),
			PersistentVolumeSource:        v1.PersistentVolumeSource{Local: &v1.LocalVolumeSource{Path: path}},
			NodeAffinity: &v1.VolumeNodeAffinity{Required: &v1.NodeSelector{NodeSelectorTerms: []v1.NodeSelectorTerm{{
				MatchExpressions: []v1.NodeSelectorRequirement{{Key: v1.LabelOSStable, Operator: v1.NodeSelectorOpIn, Values: []string{"linux"}}},
			}}}},
		},
	}
}

// makeDir makes a directory in which containers may write, whatever user they
// run as. It is on disk when makeDir returns: its object will be, too.
func makeDir(path string) error {
	if err := os.Mkdir(path, 0o777); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if err := os.Chmod(path, 0o777); err != nil { // whatever the umask
		return err
	}
	return errors.Join(syncDir(path), syncDir(filepath.Dir(path)))
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// checkName refuses names that lead out of the directory, or that are errand's own.
func checkName(name string) error {
	if name == "" || strings.HasPrefix(name, ".") || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("the volume's name %q can't name a directory", name)
	}
	return nil
}
