package idmap

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Bind mounts source at target, without what is mounted below it, its files'
// owners mapped by a user namespace. attributes are further ones (MOUNT_ATTR_…).
func Bind(source, target string, userns *os.File, attributes uint64) error {
	tree, err := mapped(source, userns, attributes)
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount %s at %s: %w", source, target, err)
	}
	return nil
}

// Check says why path can't be mounted with its files' owners mapped by a user
// namespace, whose file (/proc/<pid>/ns/user, or a pin of it) is at ns. It
// mounts nothing.
func Check(path, ns string) error {
	userns, err := os.Open(ns)
	if err != nil {
		return fmt.Errorf("open the user namespace: %w", err)
	}
	defer userns.Close() //nolint:errcheck // opened for reading
	tree, err := mapped(path, userns, 0)
	if err != nil {
		return err
	}
	return unix.Close(tree)
}

// mapped returns a mount of source that is attached nowhere.
func mapped(source string, userns *os.File, attributes uint64) (int, error) {
	tree, err := unix.OpenTree(unix.AT_FDCWD, source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("open %s to mount it: %w", source, err)
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP | attributes, Propagation: unix.MS_PRIVATE, Userns_fd: uint64(userns.Fd())}
	switch err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr); {
	case err == nil:
		return tree, nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		err = fmt.Errorf("%s: this kernel can't map the owners of files on %s to a user namespace's (id-mapped mounts): %w", source, fileSystem(source), err)
		return -1, errors.Join(err, unix.Close(tree))
	default:
		return -1, errors.Join(fmt.Errorf("map the owners of files in %s to a user namespace's: %w", source, err), unix.Close(tree))
	}
}

// fileSystem is the name of the file system that holds path, for people.
func fileSystem(path string) string {
	mounts, err := mountinfo.GetMounts(mountinfo.ParentsFilter(path))
	if err != nil || len(mounts) == 0 {
		return "its file system"
	}
	last := mounts[0]
	for _, m := range mounts {
		if len(m.Mountpoint) >= len(last.Mountpoint) {
			last = m
		}
	}
	return last.FSType
}

// Overlay calls mount with the options of an overlay whose lower directories'
// owners are mapped: an overlay itself can't be. scratch, which doesn't exist, is
// where they are mounted meanwhile, and which Unmount must be called for should
// this process end during the call.
func Overlay(options []string, scratch string, userns *os.File, mount func(options []string) error) error {
	const prefix = "lowerdir="
	changed := make([]string, len(options))
	var common string
	for i, o := range options {
		changed[i] = o
		list, ok := strings.CutPrefix(o, prefix)
		if !ok {
			continue
		}
		lowers := strings.Split(list, ":")
		common = commonParent(lowers)
		for j, dir := range lowers {
			lowers[j] = scratch + strings.TrimPrefix(dir, common)
		}
		changed[i] = prefix + strings.Join(lowers, ":")
	}
	if common == "" {
		return fmt.Errorf("an overlay of %q has no lower directories with a common parent", options)
	}
	if err := os.Mkdir(scratch, 0o700); err != nil {
		return fmt.Errorf("make a directory for mapped layers: %w", err)
	}
	err := Bind(common, scratch, userns, unix.MOUNT_ATTR_RDONLY)
	if err == nil {
		if err = mount(changed); errors.Is(err, unix.EINVAL) {
			err = fmt.Errorf("mount an overlay of layers whose owners are mapped, which needs Linux 5.19: %w", err)
		}
	}
	return errors.Join(err, Unmount(scratch))
}

// Unmount takes back what Overlay left at scratch. It is idempotent.
func Unmount(scratch string) error {
	err := unix.Unmount(scratch, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount mapped layers at %s: %w", scratch, err)
	}
	if err := os.Remove(scratch); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the directory of mapped layers: %w", err)
	}
	return nil
}

// commonParent is the deepest directory that all paths are below of, "" for none
// but the root.
func commonParent(paths []string) string {
	common := paths[0][:max(strings.LastIndexByte(paths[0], '/'), 0)]
	for _, p := range paths[1:] {
		for common != "" && !strings.HasPrefix(p, common+"/") {
			common = common[:max(strings.LastIndexByte(common, '/'), 0)]
		}
	}
	return common
}
