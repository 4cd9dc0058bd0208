package localvolumes

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/pkg/volume"

	"errand.dev/errand/internal/fstree"
)

// removing comes before the name of a directory that is being removed.
const removing = ".removing-"

// deleter removes one volume's directory.
type deleter struct {
	volume.MetricsNil
	dir string
	pv  *v1.PersistentVolume
}

// GetPath implements volume.Volume.
func (d *deleter) GetPath() string { return filepath.Join(d.dir, d.pv.Name) }

// Delete implements volume.Deleter. It may be repeated. It removes the directory
// that the volume's name stands for, and only where the volume says the same:
// what else a PersistentVolume may name isn't errand's to remove.
func (d *deleter) Delete() error {
	if err := checkName(d.pv.Name); err != nil {
		return err
	}
	path := d.GetPath()
	if local := d.pv.Spec.Local; local == nil || local.Path != path {
		return fmt.Errorf("errand removes only volumes that it made, and this one isn't at %s: remove what it holds yourself, "+
			"then set its persistentVolumeReclaimPolicy to Retain and delete it", path)
	}
	doomed := filepath.Join(d.dir, removing+d.pv.Name)
	if err := os.Rename(path, doomed); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the volume's directory: %w", err)
	}
	if err := fstree.Remove(doomed); err != nil {
		return fmt.Errorf("remove the volume's directory: %w", err)
	}
	return nil
}

// Sweep finishes removals that were cut off, and removes the empty directories
// that belong to no volume: those that a crash kept from getting one. Data
// is never removed without its PersistentVolume saying so. exists tells
// whether there is a PersistentVolume of a name. No volume may be made meanwhile.
func (p *Plugin) Sweep(exists func(name string) bool) error {
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		return fmt.Errorf("look for what is left of volumes: %w", err)
	}
	var errs []error
	for _, e := range entries {
		path := filepath.Join(p.dir, e.Name())
		switch {
		case strings.HasPrefix(e.Name(), removing):
			errs = append(errs, fstree.Remove(path))
		case e.IsDir() && !exists(e.Name()):
			if err := unix.Rmdir(path); err != nil && !errors.Is(err, unix.ENOTEMPTY) {
				errs = append(errs, &fs.PathError{Op: "rmdir", Path: path, Err: err})
			}
		}
	}
	return errors.Join(errs...)
}
