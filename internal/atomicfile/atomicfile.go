// Package atomicfile replaces files as a whole: after a crash at any moment a
// file holds either what it held before or all of what was written.
package atomicfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Write replaces the file at path, whose folder must exist. When it returns
// nil, the content and the name are on disk.
func Write(path string, data []byte, mode os.FileMode) error {
	return WriteAs(path, data, mode, -1, -1)
}

// WriteAs is Write for a file that belongs to someone else: from its first
// moment under its name it does. A uid or gid of -1 stays this process's.
func WriteAs(path string, data []byte, mode os.FileMode, uid, gid int) error {
	tmp, err := writeTemp(path, data, mode, uid, gid)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(tmp))
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func writeTemp(path string, data []byte, mode os.FileMode, uid, gid int) (name string, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return "", err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if _, err := f.Write(data); err != nil {
		return "", err
	}
	if uid >= 0 || gid >= 0 {
		if err := f.Chown(uid, gid); err != nil {
			return "", err
		}
	}
	if err := f.Chmod(mode); err != nil {
		return "", err
	}
	return f.Name(), f.Sync()
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
