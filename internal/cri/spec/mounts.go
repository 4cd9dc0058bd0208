package spec

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// mounts lists the usual ones, the sandbox's files, then the container's own,
// which replace any of the former at the same place.
func (b *builder) mounts(context.Context) error {
	own, err := b.ownMounts()
	if err != nil {
		return err
	}
	taken := map[string]bool{}
	for _, m := range own {
		taken[m.Destination] = true
	}
	for _, m := range append(b.usualMounts(), b.sandboxFiles()...) {
		if !taken[m.Destination] {
			b.spec.Mounts = append(b.spec.Mounts, m)
		}
	}
	// What lies deeper is mounted later, or the outer mount would hide it.
	slices.SortStableFunc(own, func(x, y specs.Mount) int { return depth(x.Destination) - depth(y.Destination) })
	b.spec.Mounts = append(b.spec.Mounts, own...)
	return nil
}

func depth(path string) int { return strings.Count(strings.TrimSuffix(path, "/"), "/") }

func (b *builder) usualMounts() []specs.Mount {
	sys, cgroup := "ro", "ro"
	if b.security.GetPrivileged() {
		sys, cgroup = "rw", "rw"
	}
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", sys}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", cgroup}},
	}
}

// sandboxFiles are read-only with a read-only root, as under the kubelet.
func (b *builder) sandboxFiles() []specs.Mount {
	mode := "rw"
	if b.security.GetReadonlyRootfs() {
		mode = "ro"
	}
	var out []specs.Mount
	for _, f := range []struct{ path, at string }{
		{b.Files.Hosts, "/etc/hosts"},
		{b.Files.ResolvConf, "/etc/resolv.conf"},
		{b.Files.Hostname, "/etc/hostname"},
	} {
		if f.path != "" {
			out = append(out, specs.Mount{Destination: f.at, Type: "bind", Source: f.path, Options: []string{"rbind", "rprivate", mode}})
		}
	}
	if b.Files.Shm != "" {
		out = append(out, specs.Mount{Destination: "/dev/shm", Type: "bind", Source: b.Files.Shm, Options: []string{"rbind", "rprivate", "rw"}})
	}
	return out
}

func (b *builder) ownMounts() ([]specs.Mount, error) {
	var out []specs.Mount
	for i, m := range b.Config.GetMounts() {
		bind, err := b.bind(i, m)
		if err != nil {
			return nil, fmt.Errorf("mount at %s: %w", m.GetContainerPath(), err)
		}
		out = append(out, bind)
	}
	return out, nil
}

func (b *builder) bind(i int, m *runtimeapi.Mount) (specs.Mount, error) {
	switch {
	case b.Namespaces.User == "" && mapped(m):
		return specs.Mount{}, fmt.Errorf("%w: its owners can't be mapped: the pod has no user namespace", ErrInvalid)
	case !filepath.IsAbs(m.GetContainerPath()):
		return specs.Mount{}, fmt.Errorf("%w: the path in the container is not absolute", ErrInvalid)
	case m.GetImage().GetImage() != "":
		return imageVolume(m, b.ImageVolumes[i])
	}
	source, err := hostPath(m.GetHostPath())
	if err != nil {
		return specs.Mount{}, err
	}
	propagation, err := b.propagation(m, source)
	if err != nil {
		return specs.Mount{}, err
	}
	options := append([]string{"rbind", propagation}, m.GetMountOptions()...)
	mode, err := access(m)
	if err != nil {
		return specs.Mount{}, err
	}
	if mapped(m) {
		options = append(options, "idmap")
	}
	return specs.Mount{
		Destination: filepath.Clean(m.GetContainerPath()), Type: "bind", Source: source, Options: append(options, mode),
	}, nil
}

// imageVolume is an image's files, never to be written (KEP-4639). As in an
// image's own root, programs among them can be executed.
func imageVolume(m *runtimeapi.Mount, source string) (specs.Mount, error) {
	switch {
	case source == "":
		return specs.Mount{}, fmt.Errorf("the image %s isn't mounted on the host", m.GetImage().GetImage())
	case m.GetHostPath() != "":
		return specs.Mount{}, fmt.Errorf("%w: both an image and a host path", ErrInvalid)
	case !m.GetReadonly():
		return specs.Mount{}, fmt.Errorf("%w: an image volume must be read-only", ErrInvalid)
	case m.GetPropagation() != runtimeapi.MountPropagation_PROPAGATION_PRIVATE:
		return specs.Mount{}, fmt.Errorf("%w: mounts don't propagate to and from an image volume", ErrInvalid)
	}
	return specs.Mount{
		Destination: filepath.Clean(m.GetContainerPath()), Type: "bind", Source: source,
		Options: []string{"rbind", "rprivate", "ro"},
	}, nil
}

// mapped says that the owners of the mount's files are to be mapped, as those of
// the user namespace are; not of what is mounted below it.
func mapped(m *runtimeapi.Mount) bool { return len(m.GetUidMappings())+len(m.GetGidMappings()) > 0 }

func access(m *runtimeapi.Mount) (string, error) {
	switch {
	case m.GetRecursiveReadOnly() && !m.GetReadonly():
		return "", fmt.Errorf("%w: recursively read-only but not read-only", ErrInvalid)
	case m.GetRecursiveReadOnly() && m.GetPropagation() != runtimeapi.MountPropagation_PROPAGATION_PRIVATE:
		return "", fmt.Errorf("%w: recursively read-only needs private propagation", ErrInvalid)
	case m.GetRecursiveReadOnly():
		return "rro", nil
	case m.GetReadonly():
		return "ro", nil
	}
	return "rw", nil
}

// hostPath resolves links, since a bind mount's source must not change under
// it, and makes a missing path as a directory.
func hostPath(path string) (string, error) {
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("%w: the host path %q is not absolute", ErrInvalid, path)
	}
	if err := os.MkdirAll(path, 0o755); err != nil && !isNotDir(path) {
		return "", fmt.Errorf("make the host path: %w", err)
	}
	real, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%w: the host path %s doesn't exist", ErrInvalid, path)
	}
	if err != nil {
		return "", fmt.Errorf("resolve the host path: %w", err)
	}
	return real, nil
}

// isNotDir says that the path exists and is something else than a directory.
func isNotDir(path string) bool {
	st, err := os.Lstat(path)
	return err == nil && !st.IsDir()
}

// propagation also widens that of the root, without which the kernel would
// stop events there.
func (b *builder) propagation(m *runtimeapi.Mount, source string) (string, error) {
	l := b.spec.Linux
	switch m.GetPropagation() {
	case runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL:
		shared, _, err := peer(source)
		if err != nil {
			return "", err
		}
		if !shared {
			return "", fmt.Errorf("%w: path %q is mounted on the host, but it is not a shared mount", ErrInvalid, source)
		}
		l.RootfsPropagation = "rshared"
		return "rshared", nil
	case runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER:
		shared, slave, err := peer(source)
		if err != nil {
			return "", err
		}
		if !shared && !slave {
			return "", fmt.Errorf("%w: path %q is mounted on the host, but it is not a shared or slave mount", ErrInvalid, source)
		}
		if l.RootfsPropagation != "rshared" {
			l.RootfsPropagation = "rslave"
		}
		return "rslave", nil
	}
	return "rprivate", nil
}

// peer says how the mount that holds path takes part in propagation.
func peer(path string) (shared, slave bool, err error) {
	mounts, err := mountinfo.GetMounts(mountinfo.ParentsFilter(path))
	if err != nil {
		return false, false, fmt.Errorf("read the host's mounts: %w", err)
	}
	if len(mounts) == 0 {
		return false, false, fmt.Errorf("find the mount of %s", path)
	}
	last := slices.MaxFunc(mounts, func(x, y *mountinfo.Info) int { return len(x.Mountpoint) - len(y.Mountpoint) })
	for _, opt := range strings.Fields(last.Optional) {
		shared = shared || strings.HasPrefix(opt, "shared:")
		slave = slave || strings.HasPrefix(opt, "master:")
	}
	return shared, slave, nil
}
