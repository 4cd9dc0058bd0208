package cri

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/mount"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"errand.dev/errand/internal/cri/idmap"
	"errand.dev/errand/internal/cri/namespace"
	"errand.dev/errand/internal/cri/spec"
)

// A pod's user namespace (KEP-127): made with its other namespaces, which then
// belong to it, and joined by its containers. On disk their files' owners are as
// everywhere, but for what is written to their roots; mounts map them.

// errNoHandlers is why user namespaces can't be had: who starts containers without a
// runtime knows none.
var errNoHandlers = errors.New("they need an OCI runtime, and errand has found none")

// checkUsers refuses a user namespace that can't be had.
func (s *Service) checkUsers(options *runtimeapi.NamespaceOption) error {
	users, err := idmap.FromCRI(options.GetUsernsOptions())
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", spec.ErrInvalid, err)
	case users == nil:
		return nil
	}
	for name, mode := range map[string]runtimeapi.NamespaceMode{
		"network": options.GetNetwork(), "IPC": options.GetIpc(), "process": options.GetPid(),
	} {
		if mode == runtimeapi.NamespaceMode_NODE {
			return fmt.Errorf("%w: a pod with a user namespace can't have the host's %s namespace", spec.ErrInvalid, name)
		}
	}
	if err := s.noUsers(); err != nil {
		return fmt.Errorf("%w: user namespaces (hostUsers: false) don't work on this machine: %w", spec.ErrInvalid, err)
	}
	return nil
}

// sameUsers refuses a container that doesn't want its sandbox's user namespace.
func sameUsers(sb *sandbox, config *runtimeapi.ContainerConfig) error {
	own := config.GetLinux().GetSecurityContext().GetNamespaceOptions()
	if own == nil {
		return nil
	}
	users, err := idmap.FromCRI(own.GetUsernsOptions())
	if err != nil {
		return fmt.Errorf("%w: %w", spec.ErrInvalid, err)
	}
	if have := sb.users(); (users == nil) != (have == nil) || users != nil && *users != *have {
		return fmt.Errorf("%w: the container's user namespace is not its sandbox's", spec.ErrInvalid)
	}
	return nil
}

// users are the IDs of the sandbox's user namespace; nil means the host's.
func (sb *sandbox) users() *idmap.Mapping {
	users, err := idmap.FromCRI(sb.options().GetUsernsOptions())
	if err != nil {
		return nil // such a sandbox isn't made
	}
	return users
}

// giveToRoot makes the pod's root the owner of a file that errand made for it.
func (sb *sandbox) giveToRoot(path string) error {
	users := sb.users()
	if users == nil {
		return nil
	}
	uid, gid := users.Owner()
	if err := os.Lchown(path, uid, gid); err != nil {
		return fmt.Errorf("give a file to the pod's root: %w", err)
	}
	return nil
}

// openToRoot lets the pod's root, and nobody else, go through a directory of
// errand's own: the OCI runtime does some of its work as that.
func (sb *sandbox) openToRoot(dir string) error {
	users := sb.users()
	if users == nil {
		return nil
	}
	_, gid := users.Owner()
	if err := errors.Join(os.Chown(dir, -1, gid), os.Chmod(dir, 0o710)); err != nil {
		return fmt.Errorf("open a directory to the pod's root: %w", err)
	}
	return nil
}

// closeBundle takes the way through a bundle from others that an older errand left
// them, because it left them none through the runtime directory.
func closeBundle(bundle string) error {
	st, err := os.Stat(bundle)
	if errors.Is(err, os.ErrNotExist) || err == nil && st.Mode()&0o001 == 0 {
		return nil
	}
	if err == nil {
		err = os.Chmod(bundle, 0o700)
	}
	if err != nil {
		return fmt.Errorf("close a bundle to others: %w", err)
	}
	return nil
}

// scratch is where a bundle's layers are mounted while its root or an image
// volume is.
func scratch(bundle string) string { return filepath.Join(bundle, "layers") }

// mountFor mounts for a container, the owners of all files mapped as in its pod.
func (s *Service) mountFor(c *container, target string, mounts []mount.Mount) error {
	if c.sandbox.users() == nil {
		return s.cfg.Mounter.Mount(target, mounts)
	}
	return s.cfg.Mounter.MountMapped(target, mounts, s.cfg.Namespaces.Path(c.sandbox.id, namespace.User), scratch(c.bundle))
}

// checkMapped says of a mount whose files' owners the caller wants mapped why
// they can't be.
func (s *Service) checkMapped(sb *sandbox, m *runtimeapi.Mount) error {
	if len(m.GetUidMappings())+len(m.GetGidMappings()) == 0 {
		return nil
	}
	pod := sb.options().GetUsernsOptions()
	asked := &runtimeapi.UserNamespace{Mode: pod.GetMode(), Uids: m.GetUidMappings(), Gids: m.GetGidMappings()}
	if sb.users() == nil || !proto.Equal(asked, pod) {
		return fmt.Errorf("%w: mount at %s: its owners can be mapped to the pod's user namespace alone", spec.ErrInvalid, m.GetContainerPath())
	}
	if m.GetImage().GetImage() != "" {
		return nil // mounted so by mountImageVolumes
	}
	err := idmap.Check(m.GetHostPath(), s.cfg.Namespaces.Path(sb.id, namespace.User))
	if err != nil && !errors.Is(err, os.ErrNotExist) { // what isn't there is made, or refused
		return fmt.Errorf("mount at %s of a pod with a user namespace (hostUsers: false): %w", m.GetContainerPath(), err)
	}
	return nil
}
