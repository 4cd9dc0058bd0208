package volumes

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
)

// setupHostPath checks a hostPath against its type and creates it where the
// type says so. A path of no type is created as a directory if it is missing:
// runtimes differ there, and containerd does it.
func setupHostPath(src *v1.HostPathVolumeSource) (Volume, error) {
	if slices.Contains(strings.Split(src.Path, "/"), "..") {
		return Volume{}, fmt.Errorf("invalid HostPath `%s`: must not contain '..'", src.Path)
	}
	kind := v1.HostPathUnset
	if src.Type != nil {
		kind = *src.Type
	}
	if err := checkHostPath(src.Path, kind); err != nil {
		return Volume{}, err
	}
	return Volume{HostPath: src.Path}, nil
}

func checkHostPath(path string, kind v1.HostPathType) error {
	info, err := os.Stat(path)
	missing := errors.Is(err, fs.ErrNotExist)
	switch kind {
	case v1.HostPathUnset:
		if missing {
			return os.MkdirAll(path, 0o755)
		}
		return nil
	case v1.HostPathDirectoryOrCreate:
		if missing {
			return os.MkdirAll(path, 0o755)
		}
	case v1.HostPathFileOrCreate:
		if missing {
			return createFile(path)
		}
	}
	want, ok := hostPathTypes[kind]
	if !ok {
		return fmt.Errorf("%s is an invalid volume type", kind)
	}
	if err != nil {
		return fmt.Errorf("hostPath type check failed, %s is not a %s, unable to determine its type: %w", path, want.words, err)
	}
	if found := fileType(info.Mode()); found != want.is {
		return fmt.Errorf("hostPath type check failed: %s is not a %s, it's a %s", path, want.words, found)
	}
	return nil
}

// hostPathTypes is what each type demands of the file found.
var hostPathTypes = map[v1.HostPathType]struct {
	is    v1.HostPathType
	words string
}{
	v1.HostPathDirectory:         {v1.HostPathDirectory, "directory"},
	v1.HostPathDirectoryOrCreate: {v1.HostPathDirectory, "directory"},
	v1.HostPathFile:              {v1.HostPathFile, "file"},
	v1.HostPathFileOrCreate:      {v1.HostPathFile, "file"},
	v1.HostPathSocket:            {v1.HostPathSocket, "socket file"},
	v1.HostPathCharDev:           {v1.HostPathCharDev, "character device"},
	v1.HostPathBlockDev:          {v1.HostPathBlockDev, "block device"},
}

func fileType(mode fs.FileMode) v1.HostPathType {
	switch {
	case mode.IsDir():
		return v1.HostPathDirectory
	case mode.IsRegular():
		return v1.HostPathFile
	case mode&fs.ModeSocket != 0:
		return v1.HostPathSocket
	case mode&fs.ModeCharDevice != 0:
		return v1.HostPathCharDev
	case mode&fs.ModeDevice != 0:
		return v1.HostPathBlockDev
	}
	return v1.HostPathType(mode.Type().String())
}

func createFile(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}
