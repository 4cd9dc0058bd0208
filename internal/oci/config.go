package oci

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	"errand.dev/errand/internal/oci/shimapi"
)

// Config says where the parent of the containers lives and how it runs them.
type Config struct {
	// RuntimeDir is the directory (absolute, at most 80 bytes) of the socket and the state of containers; best on a tmpfs, like /run.
	RuntimeDir string
	// ShimPath is the errand-shim binary.
	ShimPath string
	// Handlers are the OCI runtimes by name, as a RuntimeClass or RunRequest.Handler names them.
	Handlers map[string]Handler
	// DefaultHandler is the name of the one for requests that name none. It is "" where there are no Handlers: only what the
	// launcher takes can be run then.
	DefaultHandler string
	// Native has containers whose request names no handler started by errand's own launcher, in the shim, rather than by DefaultHandler,
	// which is then for those that the launcher doesn't take (package native says which).
	Native bool
	// CgroupParent is the cgroup (absolute path) under which the shim gets one of its own, "" to leave it in errand's.
	CgroupParent string
}

// Handler is an OCI runtime.
type Handler struct {
	// Path of the binary; one without a slash is looked up in $PATH.
	Path string
	// Root is the directory of the runtime's own state, "" for <RuntimeDir>/<name>.
	Root string
}

const maxRuntimeDir = 80 // what a socket's path of 107 bytes leaves

// complete checks the configuration and fills in what it leaves open.
func (c Config) complete() (Config, map[string]shimapi.Handler, error) {
	var errs []error
	if !filepath.IsAbs(c.RuntimeDir) || len(c.RuntimeDir) > maxRuntimeDir {
		errs = append(errs, fmt.Errorf("runtime directory %q: must be absolute and at most %d bytes long", c.RuntimeDir, maxRuntimeDir))
	}
	if c.CgroupParent != "" && !filepath.IsAbs(c.CgroupParent) {
		errs = append(errs, fmt.Errorf("parent cgroup %q: must be absolute", c.CgroupParent))
	}
	if _, ok := c.Handlers[c.DefaultHandler]; !ok && (c.DefaultHandler != "" || len(c.Handlers) > 0) {
		errs = append(errs, fmt.Errorf("default OCI runtime %q is not among those configured", c.DefaultHandler))
	}
	handlers := map[string]shimapi.Handler{}
	for name, h := range c.Handlers {
		path, err := exec.LookPath(h.Path)
		if err == nil {
			path, err = filepath.Abs(path)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("OCI runtime %q: %w", name, err))
		}
		if h.Root == "" {
			h.Root = filepath.Join(c.RuntimeDir, name)
		}
		handlers[name] = shimapi.Handler{Name: name, Path: path, Root: h.Root, OwnDelete: leavesLittle(path)}
	}
	return c, handlers, errors.Join(errs...)
}

// leavesLittle knows the runtimes of which a directory and the cgroups is all that a container leaves behind.
func leavesLittle(path string) bool {
	base := filepath.Base(path)
	return strings.HasPrefix(base, "runc") || strings.HasPrefix(base, "crun")
}
