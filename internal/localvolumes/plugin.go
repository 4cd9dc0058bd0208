// Package localvolumes makes PersistentVolumes out of directories of this
// machine, and removes them.
//
// It owns <data-dir>/volumes, with a directory a volume. It has no opinion on
// which claim gets which volume, or when one is given up: that is upstream's
// PersistentVolume controller, to which it is a volume plugin, the only one. It
// mounts nothing: that is the node's.
//
// # Crashes
//
// A directory is there before its PersistentVolume is, and goes before it: the
// controller repeats what was cut off until the object says otherwise. What is
// being removed is renamed first, so that it is whole or on its way out, never
// something in between. What no object tells of any more Sweep takes away.
//
// # What is not enforced
//
// A volume's capacity is what was asked for, and no quota: all volumes share the
// data directory's file system.
package localvolumes

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/volume"
)

// Provisioner is the name by which StorageClasses ask for such volumes.
const Provisioner = "errand.dev/local"

// errNoMounts answers what only a kubelet asks.
var errNoMounts = errors.New("this plugin makes and removes volumes; it mounts none")

// Plugin implements volume.ProvisionableVolumePlugin and
// volume.DeletableVolumePlugin for volumes below one directory.
type Plugin struct{ dir string }

var (
	_ volume.ProvisionableVolumePlugin = &Plugin{}
	_ volume.DeletableVolumePlugin     = &Plugin{}
)

// New returns a plugin that keeps its volumes in dir, an absolute path, which it
// creates if it is missing. Others than root have no access to it.
func New(dir string) (*Plugin, error) {
	if !filepath.IsAbs(dir) {
		return nil, fmt.Errorf("the directory of volumes %q is no absolute path", dir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of volumes: %w", err)
	}
	return &Plugin{dir: dir}, nil
}

// Init implements volume.VolumePlugin.
func (p *Plugin) Init(volume.VolumeHost) error { return nil }

// GetPluginName implements volume.VolumePlugin.
func (p *Plugin) GetPluginName() string { return Provisioner }

// GetVolumeName implements volume.VolumePlugin.
func (p *Plugin) GetVolumeName(spec *volume.Spec) (string, error) { return spec.Name(), nil }

// CanSupport implements volume.VolumePlugin. Only a volume that says it was
// made by this plugin is its own; one is never taken for that by its source.
func (p *Plugin) CanSupport(*volume.Spec) bool { return false }

// RequiresRemount implements volume.VolumePlugin.
func (p *Plugin) RequiresRemount(*volume.Spec) bool { return false }

// NewMounter implements volume.VolumePlugin: it fails.
func (p *Plugin) NewMounter(*volume.Spec, *v1.Pod) (volume.Mounter, error) { return nil, errNoMounts }

// NewUnmounter implements volume.VolumePlugin: it fails.
func (p *Plugin) NewUnmounter(string, types.UID) (volume.Unmounter, error) { return nil, errNoMounts }

// ConstructVolumeSpec implements volume.VolumePlugin: it fails.
func (p *Plugin) ConstructVolumeSpec(string, string) (volume.ReconstructedVolume, error) {
	return volume.ReconstructedVolume{}, errNoMounts
}

// SupportsMountOption implements volume.VolumePlugin.
func (p *Plugin) SupportsMountOption() bool { return false }

// SupportsSELinuxContextMount implements volume.VolumePlugin.
func (p *Plugin) SupportsSELinuxContextMount(*volume.Spec) (bool, error) { return false, nil }

// NewProvisioner implements volume.ProvisionableVolumePlugin.
func (p *Plugin) NewProvisioner(_ klog.Logger, options volume.VolumeOptions) (volume.Provisioner, error) {
	return &provisioner{dir: p.dir, options: options}, nil
}

// NewDeleter implements volume.DeletableVolumePlugin.
func (p *Plugin) NewDeleter(_ klog.Logger, spec *volume.Spec) (volume.Deleter, error) {
	if spec.PersistentVolume == nil {
		return nil, errors.New("only a PersistentVolume can be deleted")
	}
	return &deleter{dir: p.dir, pv: spec.PersistentVolume}, nil
}
