package volumes

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/kubernetes/third_party/forked/golang/expansion"
)

// MountOptions are what Mounts needs to know besides.
type MountOptions struct {
	// Env is the container's environment, for subPathExpr.
	Env map[string]string
	// RecursiveReadOnly tells that the runtime supports recursive read-only
	// mounts (KEP-3857).
	RecursiveReadOnly bool
}

// Mounts returns what the runtime is to mount for the container's volumeMounts.
// vols is Setup's answer. It may bind sub-paths on the host, which Teardown undoes; call it anew for each
// start of the container, and not concurrently for one container.
func (m *Manager) Mounts(pod *v1.Pod, c *v1.Container, vols map[string]Volume, o MountOptions) ([]*runtimeapi.Mount, error) {
	if len(c.VolumeDevices) > 0 {
		return nil, fmt.Errorf("container %q: volumeDevices are not supported by errand: mount %q as a file system, in volumeMounts",
			c.Name, c.VolumeDevices[0].Name)
	}
	mounts := make([]*runtimeapi.Mount, 0, len(c.VolumeMounts))
	for i := range c.VolumeMounts {
		vm := &c.VolumeMounts[i]
		vol, ok := vols[vm.Name]
		if !ok {
			return nil, fmt.Errorf("cannot find volume %q to mount into container %q", vm.Name, c.Name)
		}
		mount, err := mountFor(vm, vol, o.RecursiveReadOnly)
		if err != nil {
			return nil, err
		}
		sub, err := subPathOf(vm, o.Env)
		if err != nil {
			return nil, err
		}
		switch {
		case vol.Image != nil:
			mount.ImageSubPath = sub
		case sub != "":
			target := m.subPathTarget(pod.UID, vm.Name, c.Name, i)
			if mount.HostPath, err = bindSubPath(vol.HostPath, sub, target); err != nil {
				return nil, fmt.Errorf("failed to prepare subPath for volumeMount %q of container %q: %w", vm.Name, c.Name, err)
			}
		}
		mounts = append(mounts, mount)
	}
	return mounts, nil
}

func mountFor(vm *v1.VolumeMount, vol Volume, canRecursive bool) (*runtimeapi.Mount, error) {
	propagation, err := propagationOf(vm)
	if err != nil {
		return nil, err
	}
	recursive, err := recursiveReadOnly(vm, canRecursive)
	if err != nil {
		return nil, fmt.Errorf("failed to resolve recursive read-only mode: %w", err)
	}
	if len(vm.BindMountOptions) > 0 {
		return nil, fmt.Errorf("volumeMount %q: bindMountOptions are not supported by errand", vm.Name)
	}
	path := vm.MountPath
	if !filepath.IsAbs(path) {
		path = filepath.Join("/", path)
	}
	return &runtimeapi.Mount{
		ContainerPath:     path,
		HostPath:          vol.HostPath,
		Image:             vol.Image,
		Readonly:          vm.ReadOnly || vol.ReadOnly,
		RecursiveReadOnly: recursive,
		SelinuxRelabel:    vol.Managed,
		Propagation:       propagation,
	}, nil
}

func propagationOf(vm *v1.VolumeMount) (runtimeapi.MountPropagation, error) {
	if vm.MountPropagation == nil {
		return runtimeapi.MountPropagation_PROPAGATION_PRIVATE, nil
	}
	switch *vm.MountPropagation {
	case v1.MountPropagationNone:
		return runtimeapi.MountPropagation_PROPAGATION_PRIVATE, nil
	case v1.MountPropagationHostToContainer:
		return runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER, nil
	case v1.MountPropagationBidirectional:
		return runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL, nil
	default:
		return 0, fmt.Errorf("invalid MountPropagation mode: %q", *vm.MountPropagation)
	}
}

// recursiveReadOnly decides as KEP-3857 says.
func recursiveReadOnly(vm *v1.VolumeMount, supported bool) (bool, error) {
	if vm.RecursiveReadOnly == nil || *vm.RecursiveReadOnly == v1.RecursiveReadOnlyDisabled {
		return false, nil
	}
	if !vm.ReadOnly {
		return false, fmt.Errorf("volume %q requested recursive read-only mode, but it is not read-only", vm.Name)
	}
	if vm.MountPropagation != nil && *vm.MountPropagation != v1.MountPropagationNone {
		return false, fmt.Errorf("volume %q requested recursive read-only mode, but it is not compatible with propagation %q",
			vm.Name, *vm.MountPropagation)
	}
	switch *vm.RecursiveReadOnly {
	case v1.RecursiveReadOnlyIfPossible:
		return supported, nil
	case v1.RecursiveReadOnlyEnabled:
		if !supported {
			return false, fmt.Errorf("volume %q requested recursive read-only mode, but it is not supported by the runtime", vm.Name)
		}
		return true, nil
	default:
		return false, fmt.Errorf("unknown recursive read-only mode %q", *vm.RecursiveReadOnly)
	}
}

// subPathOf returns the clean path below the volume's root that is to be
// mounted, "" for the root itself.
func subPathOf(vm *v1.VolumeMount, env map[string]string) (string, error) {
	sub := vm.SubPath
	if vm.SubPathExpr != "" {
		var err error
		if sub, err = expandSubPath(vm.SubPathExpr, env); err != nil {
			return "", err
		}
	}
	if sub == "" {
		return "", nil
	}
	if filepath.IsAbs(sub) {
		return "", fmt.Errorf("error SubPath `%s` must not be an absolute path", sub)
	}
	if slices.Contains(strings.Split(sub, "/"), "..") {
		return "", fmt.Errorf("unable to provision SubPath `%s`: must not contain '..'", sub)
	}
	if sub = filepath.Clean(sub); sub == "." {
		return "", nil
	}
	return sub, nil
}

func expandSubPath(expr string, env map[string]string) (string, error) {
	var missing []string
	out := expansion.Expand(expr, func(name string) string {
		value := env[name]
		if value == "" && !slices.Contains(missing, name) {
			missing = append(missing, name)
		}
		return value
	})
	if len(missing) > 0 {
		slices.Sort(missing)
		return "", fmt.Errorf("missing value for %s", strings.Join(missing, ", "))
	}
	return out, nil
}
