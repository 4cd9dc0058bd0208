package volumes

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/component-helpers/resource"
	v1helper "k8s.io/kubernetes/pkg/apis/core/v1/helper"

	"errand.dev/errand/internal/node/crispec"
)

// setupEmptyDir makes an emptyDir, or finds it as an earlier call left it.
func (m *Manager) setupEmptyDir(r request) (Volume, error) {
	src := emptyDirOf(r.vol)
	dir := m.volumeDir(r.pod.UID, pluginEmptyDir, r.vol.Name)
	if err := os.MkdirAll(filepath.Dir(dir), 0o750); err != nil {
		return Volume{}, err
	}
	var err error
	switch {
	case src.Medium == v1.StorageMediumDefault:
		err = makeOpenDir(dir, emptyDirMode(src), fsGroup(r.pod))
	case src.Medium == v1.StorageMediumMemory:
		err = mountOnce(dir, "tmpfs", tmpfsOptions(src, r.pod, r.info))
	case v1helper.IsHugePageMedium(src.Medium):
		var options string
		if options, err = hugePageOptions(src, r.pod); err == nil {
			err = mountOnce(dir, "hugetlbfs", options)
		}
	default:
		err = fmt.Errorf("unknown storage medium %q", src.Medium)
	}
	if err != nil {
		return Volume{}, err
	}
	return Volume{HostPath: dir, Managed: true}, nil
}

// emptyDirMode is the mode of an emptyDir's root: its own (KEP-5607) or 0777.
func emptyDirMode(src *v1.EmptyDirVolumeSource) fs.FileMode {
	if src.Mode == nil {
		return 0o777
	}
	bits := uint32(*src.Mode)
	mode := fs.FileMode(bits & 0o777)
	for bit, flag := range map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if bits&bit != 0 {
			mode |= flag
		}
	}
	return mode
}

// tmpfsMode is the mode that the kernel gives a tmpfs of which nothing is said,
// as the kubelet leaves it: sticky, unlike that of an emptyDir on disk.
const tmpfsMode = 0o1777

// mountMode is the root's mode, where the volume says nothing unset, and group
// as mount options, so that a file system that is mounted at all is mounted
// right.
func mountMode(src *v1.EmptyDirVolumeSource, pod *v1.Pod, unset uint32) []string {
	mode := unset
	if src.Mode != nil {
		mode = uint32(*src.Mode)
	}
	group := fsGroup(pod)
	if group == nil {
		return []string{fmt.Sprintf("mode=%04o", mode)}
	}
	return []string{fmt.Sprintf("mode=%04o", mode|0o2770), fmt.Sprintf("gid=%d", *group)}
}

func tmpfsOptions(src *v1.EmptyDirVolumeSource, pod *v1.Pod, info Info) string {
	options := mountMode(src, pod, tmpfsMode)
	if size := memorySize(src, pod, info); size > 0 {
		options = append(options, fmt.Sprintf("size=%d", size))
	}
	return strings.Join(options, ",")
}

// memorySize is how many bytes a memory-backed emptyDir may hold: the least of
// its sizeLimit, the pod's memory limit and what the node has for pods
// (KEP-1967). 0 means that none of them is known.
func memorySize(src *v1.EmptyDirVolumeSource, pod *v1.Pod, info Info) int64 {
	size := info.Allocatable.Memory().Value()
	bound := func(limit int64) {
		if limit > 0 && (size == 0 || limit < size) {
			size = limit
		}
	}
	limits := crispec.PodLimits(pod, resource.PodResourcesOptions{})
	bound(limits.Memory().Value())
	if src.SizeLimit != nil {
		bound(src.SizeLimit.Value())
	}
	return size
}

// hugePageOptions chooses the page size: the medium's (HugePages-2Mi) or, for
// plain HugePages, the only one that the pod requests.
func hugePageOptions(src *v1.EmptyDirVolumeSource, pod *v1.Pod) (string, error) {
	requested := requestedPageSizes(pod)
	var size apiresource.Quantity
	switch {
	case src.Medium != v1.StorageMediumHugePages:
		want, err := v1helper.HugePageSizeFromMedium(src.Medium)
		if err != nil {
			return "", err
		}
		if _, ok := requested[want.Value()]; !ok {
			requested = nil
		}
		size = want
	case len(requested) > 1:
		return "", fmt.Errorf("medium: %s can't be used if container requests multiple huge page sizes", src.Medium)
	default:
		for _, size = range requested {
		}
	}
	if len(requested) == 0 {
		return "", fmt.Errorf("medium %s: hugePages storage requested, but there is no resource request for huge pages", src.Medium)
	}
	options := append(mountMode(src, pod, 0o777), fmt.Sprintf("pagesize=%d", size.Value()))
	return strings.Join(options, ","), nil
}

// requestedPageSizes is the huge page sizes, by bytes, that the pod or its
// containers request.
func requestedPageSizes(pod *v1.Pod) map[int64]apiresource.Quantity {
	sizes := map[int64]apiresource.Quantity{}
	add := func(requests v1.ResourceList) {
		for name := range requests {
			if size, err := v1helper.HugePageSizeFromResourceName(name); err == nil {
				sizes[size.Value()] = size
			}
		}
	}
	if pod.Spec.Resources != nil {
		add(pod.Spec.Resources.Requests)
	}
	for _, containers := range [][]v1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range containers {
			add(containers[i].Resources.Requests)
		}
	}
	return sizes
}

// mountOnce mounts a file system of the type on dir, creating the directory,
// unless one is mounted there already.
func mountOnce(dir, fsType, options string) error {
	if err := makeOpenDir(dir, 0o777, nil); err != nil {
		return err
	}
	mounted, err := isMountPoint(dir)
	if err != nil || mounted {
		return err
	}
	if err := unix.Mount(fsType, dir, fsType, 0, options); err != nil {
		return fmt.Errorf("mount %s (%s): %w", fsType, options, err)
	}
	return nil
}

// isMountPoint tells whether a file system of its own is mounted on dir.
func isMountPoint(dir string) (bool, error) {
	var self, parent unix.Stat_t
	if err := errors.Join(unix.Lstat(dir, &self), unix.Lstat(filepath.Dir(dir), &parent)); err != nil {
		return false, &fs.PathError{Op: "lstat", Path: dir, Err: err}
	}
	return self.Dev != parent.Dev, nil
}
