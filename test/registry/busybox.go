package registry

import (
	"errors"
	"path/filepath"
)

// StartBusybox starts a server, on a loopback address or "" for any, that has
// docker.io/library/busybox:latest alone, and writes the registries.conf that
// leads there, whose path it returns. All of its files are in dir.
func StartBusybox(listen, dir string) (s *Server, conf string, err error) {
	if conf, err = filepath.Abs(filepath.Join(dir, "registries.conf")); err != nil {
		return nil, "", err
	}
	busybox, err := Busybox(Owner{})
	if err != nil {
		return nil, "", err
	}
	if s, err = Start(Options{Listen: listen, Dir: filepath.Join(dir, "blobs")}); err != nil {
		return nil, "", err
	}
	if err = s.Push("library/busybox:latest", busybox); err == nil {
		err = s.WriteRegistriesConf(conf)
	}
	if err != nil {
		return nil, "", errors.Join(err, s.Close())
	}
	return s, conf, nil
}
