package server

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"errand.dev/errand/internal/instance"
	"errand.dev/errand/internal/memoryfs"
)

// runtimeDirMode lets others go through the directory to what they may open, and
// see nothing of it: root of a pod with a user namespace is such another, and its
// containers' roots are below. All sockets there are for their owner alone.
const runtimeDirMode = 0o711

// makeRuntimeDir makes the directory of sockets, which nobody else may have a
// hand in: where it isn't below /run, others could have made it first. For pods
// it is kept in memory.
func makeRuntimeDir(path string, pods bool) error {
	if err := os.MkdirAll(path, runtimeDirMode); err != nil {
		return fmt.Errorf("make the runtime directory: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return fmt.Errorf("make the runtime directory: stat %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Geteuid() || st.Mode&0o066 != 0 {
		return fmt.Errorf("the runtime directory %s must be a directory of this user's that others can't read or write (mode 0711): remove it, then start again", path)
	}
	if pods {
		if err := keepInMemory(path); err != nil {
			return fmt.Errorf("keep the runtime directory in memory: %w", err)
		}
	}
	if err := os.Chmod(path, runtimeDirMode); err != nil { // whatever the umask, an older errand, or a fresh mount
		return fmt.Errorf("make the runtime directory: %w", err)
	}
	return nil
}

// keepInMemory sees to it that an empty runtime directory is in memory, as it is
// where an init system has mounted /run, and isn't within most containers: each
// pod makes a dozen files in it, and they describe what ends with the boot.
// A directory that isn't empty is left as it is, for a shim may listen there.
// Who may not mount goes without.
func keepInMemory(path string) error {
	on, err := memoryfs.Look(path)
	if err != nil || on.Memory || os.Geteuid() != 0 {
		return err
	}
	if entries, err := os.ReadDir(path); err != nil || len(entries) > 0 {
		return err
	}
	if err := memoryfs.Mount(path); err != nil && !errors.Is(err, fs.ErrPermission) { // EPERM, or EACCES
		return err
	}
	return nil
}

// leaveRuntimeDir removes the runtime directory, and what keepInMemory mounted,
// at the end of an errand. It stays if anything is in it, such as the socket of
// the shim that goes on.
func leaveRuntimeDir(names instance.Names) {
	err := os.Remove(names.RuntimeDir)
	if !errors.Is(err, unix.EBUSY) {
		return
	}
	if entries, err := os.ReadDir(names.RuntimeDir); err != nil || len(entries) > 0 {
		return
	}
	if unix.Unmount(names.RuntimeDir, unix.UMOUNT_NOFOLLOW) == nil {
		_ = os.Remove(names.RuntimeDir) // as above
	}
}

// removeRuntimeDir removes the runtime directory with what is mounted in it.
func removeRuntimeDir(names instance.Names) error {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(names.RuntimeDir))
	if err != nil {
		return fmt.Errorf("list the mounts in the runtime directory: %w", err)
	}
	var paths []string
	for _, m := range mounts {
		paths = append(paths, m.Mountpoint)
	}
	if err := unmount(paths); err != nil {
		return err
	}
	if err := os.RemoveAll(names.RuntimeDir); err != nil {
		return fmt.Errorf("remove the runtime directory: %w", err)
	}
	return nil
}

// unmount takes down what is mounted, given in the order of mounting.
func unmount(paths []string) error {
	for _, path := range slices.Backward(paths) {
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unmount %s: %w", path, err)
		}
	}
	return nil
}
